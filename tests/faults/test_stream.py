"""A streaming query that scores into Delta is killed and restarted: every row is there once."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time

import pytest
from doubling import export_doubling
from faults.processes import strike_all, wait_for_the_hit

pytestmark = [
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SCRIPT = """
    import sys
    import spark_dl
    from spark_dl.session import embedded_session

    folder, model = sys.argv[1:]
    with embedded_session("local[1]") as spark:
        stream = spark.readStream.format("delta").option("maxFilesPerTrigger", 1)
        query = spark_dl.score_stream(
            stream.load(f"{folder}/in"),
            model,
            output=f"{folder}/out",
            checkpoint=f"{folder}/position",
            name="night",
            trigger={"availableNow": True},
        )
        query.awaitTermination()
"""


@pytest.fixture
def model(tmp_path):
    return export_doubling(tmp_path / "1")


@pytest.mark.faults
def test_a_killed_query_goes_on_where_it_was(spark, model, tmp_path):
    batches = 5
    for number in range(batches):
        rows = f"SELECT id, float(id) a FROM range({number * 3}, {number * 3 + 3}, 1, 1)"  # noqa: S608 (our own numbers)
        spark.sql(rows).write.format("delta").mode("append").save(str(tmp_path / "in"))
    script = tmp_path / "query.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(tmp_path), model]
    with subprocess.Popen(command, start_new_session=True) as query:
        deadline = time.monotonic() + 300
        log = tmp_path / "out" / "_delta_log"
        while not (log / f"{2:020}.json").exists():
            assert query.poll() is None, "the query ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        strike_all(query.pid)
    wait_for_the_hit()
    subprocess.run(command, check=True, timeout=400)
    found = spark.read.format("delta").load(str(tmp_path / "out")).orderBy("id").collect()
    assert [(row["id"], row["prediction"]) for row in found] == [
        (i, 2.0 * i) for i in range(3 * batches)
    ]
    commits = [json.loads(p.read_text().splitlines()[0]) for p in sorted(log.glob("*.json"))]
    assert len(commits) == batches + 1  # one made the table

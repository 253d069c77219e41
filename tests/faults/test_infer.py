"""The job `infer` is killed while it writes: the table stays as it was; a rerun adds all once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest
from doubling import export_doubling
from faults.processes import strike_all, wait_for_the_hit

from spark_dl.config import load_config
from spark_dl.pipeline import run_infer

pytestmark = [
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SCRIPT = """
    import sys
    from spark_dl.config import load_config
    from spark_dl.pipeline import run_infer
    from spark_dl.session import embedded_session

    with embedded_session("local[1]") as spark:
        run_infer(load_config(None, sys.argv[1:]), spark)
"""
#: So many files take seconds, of which the kill needs a moment.
FILES = 16


@pytest.fixture
def model(tmp_path):
    return export_doubling(tmp_path / "1")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("form", "mode"),
    [
        pytest.param("delta", "append", marks=pytest.mark.smoke),
        ("parquet", "append"),
        ("parquet", "overwrite"),
    ],
)
def test_a_killed_job_leaves_the_old_state(spark, model, tmp_path, form, mode):
    output = tmp_path / "out"

    def settings(name, first, last, files):
        query = f"SELECT id, float(id) a FROM range({first}, {last}, 1, {files})"  # noqa: S608 (our own numbers)
        table = [f"table.sql={query}", f"infer.model={model}", f"runs={tmp_path}/runs"]
        return [
            *table,
            f"output.mode={mode}",
            f"output.path={output}",
            f"output.format={form}",
            f"output.scoring_id={name}",
        ]

    def there():
        return spark.read.format(form).load(str(output))

    run_infer(load_config(None, settings("old", 0, 5, 1)), spark)
    before = sorted(there().collect())
    old_files = set(tmp_path.rglob("part-*"))
    new = settings("new", 5, 5 + 2 * FILES, FILES)
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen([sys.executable, str(script), *new], start_new_session=True) as job:
        deadline = time.monotonic() + 400
        while len(set(tmp_path.rglob("part-*")) - old_files) < 2:
            assert job.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        strike_all(job.pid)
    wait_for_the_hit()
    spark.catalog.clearCache()
    assert sorted(there().collect()) == before
    for _ in range(2):  # the second rerun adds nothing
        result = run_infer(load_config(None, new), spark)
        assert (result["scoring_id"], result["rows"]) == ("new", 2 * FILES)
        first = 0 if mode == "append" else 5
        rows = there().orderBy("id").select("id", "prediction").collect()
        assert [tuple(row) for row in rows] == [(i, 2.0 * i) for i in range(first, 5 + 2 * FILES)]

"""What a job gets where no master is set: a cluster in miniature, and nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.long]

SCRIPT = """
import json, os, sys
import pyspark
from spark_dl.session import job_session

def facts(batches):
    import pyarrow as pa
    for _ in batches:
        pass
    yield pa.RecordBatch.from_pydict({"pid": [os.getppid()], "python": [sys.executable]})

with job_session("test") as spark:
    rows = spark.range(0, 2, 1, 2).mapInArrow(facts, "pid long, python string", barrier=True)
    rows = rows.collect()
    path = sys.argv[1]
    spark.range(5).write.format("tfrecord").save(path + "/records")
    spark.range(5).write.format("delta").save(path + "/table")
    application = spark.sparkContext.applicationId
    master = spark.sparkContext.master

home = os.path.dirname(pyspark.__file__)
print(json.dumps({
    "master": master,
    "executors": len({row.pid for row in rows}),
    "pythons": sorted({row.python for row in rows}),
    "files": sorted(name for name in os.listdir(path) if not name.startswith(".")),
    "is_its_own": f"-{os.getpid()}-" in application,  # also of another that starts this second
    "left": os.path.exists(os.path.join(home, "work", application)),
}))
"""


@pytest.fixture
def facts(tmp_path):
    hidden = {"SPARK_HOME", "PYSPARK_PYTHON", "MASTER", "SPARK_CONF_DIR"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_without_a_master_a_job_gets_two_executors_with_jars_and_this_python(facts):
    assert facts == {
        "master": "local-cluster[2,1,1024]",
        "executors": 2,
        "pythons": [sys.executable],
        "files": ["records", "table"],
        "is_its_own": True,
        "left": False,
    }


PROBE = """
import sys
from pyspark.sql import SparkSession
from spark_dl.cluster.select import probe_executors
from spark_dl.errors import ResourceError

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
try:
    probe_executors(spark.config("spark.pyspark.python", sys.argv[1]).getOrCreate(), 1)
except ResourceError as error:
    print(error)
"""


def test_executors_whose_python_lacks_our_packages_are_told_as_such(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path / "bare" / "bin" / "python")],
        env={key: value for key, value in os.environ.items() if key != "PYSPARK_PYTHON"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    said = r"the executors' Python has no (spark_dl|pyarrow): let spark\.pyspark\.python "
    assert re.match(said, done.stdout), done.stdout + done.stderr[-4000:]

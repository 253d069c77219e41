"""One job on YARN with everything on HDFS, in this checkout's Python, without the guide."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pyspark
import pytest
from clusters.environment import ROOT
from clusters.guide import shell, user_environ

pytestmark = pytest.mark.timeout(900)

SPARK_HOME = os.path.dirname(pyspark.__file__)
SETTINGS = {
    "spark.master": "yarn",
    "spark.executor.instances": "2",
    "spark.executor.memory": "512m",
    "spark.executor.memoryOverhead": "1536m",
    "spark.driver.memory": "768m",
    "spark.yarn.am.memory": "384m",
    "spark.yarn.jars": f"local:{SPARK_HOME}/jars/*",
    "spark.pyspark.python": sys.executable,
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
}


def test_everything_on_hdfs(hadoop, tmp_path):
    (jar,) = Path(ROOT / "build" / "jars").glob("spark-dl-connector_*.jar")
    settings = SETTINGS | {"spark.jars": str(jar)}
    flags = " ".join(f"--conf '{key}={value}'" for key, value in settings.items())
    program = ROOT / "tests" / "clusters" / "whole_flow.py"
    done = shell(
        f"spark-submit {flags} {program} hdfs:///smoke",
        folder=tmp_path,
        environ=user_environ(
            [os.path.join(SPARK_HOME, "bin")], {"SPARK_HOME": SPARK_HOME, **hadoop.environ}
        ),
    )
    assert done.returncode == 0, done.stderr[-8000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["rows"] == 200
    assert told["model"].startswith("hdfs:///smoke/runs/")
    status = json.loads(hadoop.fs("-cat", f"{told['run']}/status.json"))
    assert status["status"] == "succeeded"
    names = hadoop.fs("-ls", "-C", "-R", told["run"])
    for part in ("metrics.jsonl", "tfevents", "checkpoint.json", "model/1/model.json"):
        assert part in names

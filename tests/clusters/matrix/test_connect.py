"""From table to predictions by a client of Spark Connect, whichever Spark is installed here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pyspark
import pytest
from clusters.connect.packages import connect_packages
from clusters.environment import run
from clusters.hadoop import maven_jars

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]

HERE = Path(__file__).parents[1] / "connect"


def server_jars() -> str:
    """Return the server's own jar; since Spark 4.0 it is one of Spark's."""
    if not pyspark.__version__.startswith("3."):
        return ""
    (jar,) = maven_jars("connect-spark-3.5", HERE / "spark-3.5-pom.xml").glob("*.jar")
    return str(jar)


def test_table_to_predictions_over_connect(tmp_path):
    environ = {
        **os.environ,
        "PYTHONPATH": str(connect_packages()),
        "CONNECT_SERVER_JAR": server_jars(),
    }
    command = (sys.executable, HERE / "local.py", tmp_path, "train,fail,tfos")
    said = run(*command, env=environ, cwd=tmp_path, timeout_s=840)
    steps = [json.loads(line) for line in said.splitlines() if line.startswith('{"step"')]
    told = {step["step"]: step for step in steps}
    assert sum(told["prepare"]["rows"].values()) == 400
    first, *_, last = told["train"]["loss"]
    assert last < first
    assert told["predict"]["rows"] == 400
    assert "boom at" in told["fail"]["text"].splitlines()[0]
    assert "barrier" in told["tfos"]["text"]

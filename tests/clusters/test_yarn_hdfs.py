"""One job on YARN with everything on HDFS, from the wheel, without the guide."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from clusters.boards import check_tensorboard
from clusters.environment import run
from clusters.flow import ON_YARN, SPARK_HOME, submit_flow

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(900)]


def test_everything_on_hdfs(hadoop, environment, tmp_path):
    root = f"hdfs:///{tmp_path.name}"  # a second try has its own
    settings = ON_YARN | {"spark.pyspark.python": environment.python}
    told = submit_flow(tmp_path, root, "barrier", settings=settings, environ=hadoop.environ)
    assert told["backend"] == "barrier"  # the guide's is the other one
    assert all("/site-packages/spark_dl/" in path for path in told["packages"])
    assert told["rows"] == 200
    assert told["model"].startswith(f"{root}/runs/")
    status = json.loads(hadoop.fs("-cat", f"{told['run']}/status.json"))
    assert status["status"] == "succeeded"
    names = hadoop.fs("-ls", "-C", "-R", told["run"])
    # whoever looks at the run has no Spark session, only Hadoop's settings
    runs, _, name = told["run"].rpartition("/")
    environ = {**os.environ, "SPARK_HOME": SPARK_HOME, **hadoop.environ}
    spark_dl = str(Path(environment.python).with_name("spark-dl"))
    shown = run(spark_dl, "runs", "show", name, "--runs", runs, env=environ, cwd=tmp_path)
    assert "succeeded" in shown
    check_tensorboard([spark_dl], runs, name, environ)
    for rank in range(2):
        tokens = json.loads(hadoop.fs("-cat", f"{root}/tokens-{rank}.json"))
        assert re.search(r"/container_\w+/container_tokens$", tokens["file"])
        assert tokens["read"]
    for part in ("metrics.jsonl", "tfevents", "checkpoint.json", "model/1/model.json"):
        assert part in names

"""One job on YARN with everything on HDFS, from the wheel, without the guide."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from clusters.environment import run
from clusters.flow import ON_YARN, SPARK_HOME, submit_flow
from shells import INTERRUPTIBLE

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(900)]

DEADLINE_S = 240


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
    board = [spark_dl, "tensorboard", name, "--runs", runs, "--port", "0", "--every-s", "1"]
    check_tensorboard(board, environ, f"{name}/train")
    for rank in range(2):
        tokens = json.loads(hadoop.fs("-cat", f"{root}/tokens-{rank}.json"))
        assert re.search(r"/container_\w+/container_tokens$", tokens["file"])
        assert tokens["read"]
    for part in ("metrics.jsonl", "tfevents", "checkpoint.json", "model/1/model.json"):
        assert part in names


def check_tensorboard(command, environ, run):
    """Hold that TensorBoard shows a run whose events are mirrored from HDFS."""
    process = subprocess.Popen(
        [*INTERRUPTIBLE, *command], env=environ, stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("1 runs in TensorBoard: ")
        url = re.search(r"http://\S+", line)[0]
        deadline = time.monotonic() + DEADLINE_S
        while not (tags := scalars(url)).get(run):
            assert time.monotonic() < deadline, tags
            threading.Event().wait(0.2)
        assert "epoch/loss" in tags[run]
    finally:
        process.terminate()
        code = process.wait(DEADLINE_S)
        process.stdout.close()
    assert code == 0


def scalars(url):
    """Return the names of the curves of each run."""
    tags = f"{url}data/plugin/scalars/tags"
    with urllib.request.urlopen(tags, timeout=DEADLINE_S) as answer:  # noqa: S310
        return json.load(answer)

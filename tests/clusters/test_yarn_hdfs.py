"""One job on YARN with everything on HDFS, from the wheel, without the guide."""

from __future__ import annotations

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clusters.boards import check_tensorboard
from clusters.environment import run
from clusters.flow import ON_YARN, SPARK_HOME, submit_flow

pytestmark = pytest.mark.timeout(900)


DEADLINE_S = 240


def state_of_run(hadoop, root):
    """Return what the only run below a folder says of itself, empty before it says anything."""
    names = hadoop.fs("-ls", "-C", "-R", root).split()
    status = [name for name in names if re.search(r"/runs/[^/]+/status\.json$", name)]
    return json.loads(hadoop.fs("-cat", status[0]))["status"] if status else ""


def test_an_application_that_is_killed_is_a_cancelled_run(hadoop, environment, tmp_path):
    root = f"{hadoop.uri}/{tmp_path.name}"
    hadoop.fs("-mkdir", "-p", root)
    settings = ON_YARN | {"spark.pyspark.python": environment.python}
    with ThreadPoolExecutor() as pool:
        flow = pool.submit(
            submit_flow, tmp_path, root, "barrier", "200", settings=settings, environ=hadoop.environ
        )
        deadline = time.monotonic() + DEADLINE_S
        while state_of_run(hadoop, root) != "running":
            assert time.monotonic() < deadline, flow
            assert not flow.done(), flow.exception()
        hadoop.kill_application()
        ended = str(flow.exception(DEADLINE_S))
    assert re.search("the Spark (application was stopped|job was cancelled)", ended), ended
    assert state_of_run(hadoop, root) == "cancelled"


@pytest.mark.smoke
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

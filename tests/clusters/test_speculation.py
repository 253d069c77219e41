"""Speculation: a second attempt of a task adds no row twice, and a rank is never started twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyspark
import pytest
from clusters.environment import run

from spark_dl.config.environment import point_executors_at_this_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPARK_HOME = os.path.dirname(pyspark.__file__)
SCRIPT = Path(__file__).parent / "speculating_job.py"
DEADLINE_S = 240


def started(daemons: contextlib.ExitStack, log: Path, *words: str) -> None:
    """Start one of Spark's daemons; it is ended with the stack."""
    with open(log, "w") as out:
        process = subprocess.Popen(
            [os.path.join(SPARK_HOME, "bin", "spark-class"), *words],
            env={**os.environ, "SPARK_HOME": SPARK_HOME},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    daemons.callback(process.wait, DEADLINE_S)
    daemons.callback(process.kill)


def said(log: Path, pattern: str) -> str:
    """Wait until a daemon's log has a line, and return what the pattern's group matches."""
    end = time.monotonic() + DEADLINE_S
    while True:
        found = re.search(pattern, log.read_text())
        if found:
            return found[1]
        assert time.monotonic() < end, log.read_text()[-3000:]
        threading.Event().wait(0.1)


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """A standalone cluster of two workers, which are two hosts to Spark."""
    point_executors_at_this_python(SPARK_HOME)
    folder = tmp_path_factory.mktemp("standalone")
    any_port = ("--port", "0", "--webui-port", "0")
    deploy = "org.apache.spark.deploy"
    with contextlib.ExitStack() as daemons:
        log = folder / "master.log"
        started(daemons, log, f"{deploy}.master.Master", "--host", "127.0.0.1", *any_port)
        url = said(log, r"Starting Spark master at (spark://\S+)")
        for host in ("127.0.0.2", "127.0.0.3"):
            own = (
                "--host",
                host,
                "--cores",
                "1",
                "--memory",
                "2g",
                "--work-dir",
                f"{folder}/{host}",
            )
            log = folder / f"{host}.log"
            started(daemons, log, f"{deploy}.worker.Worker", *own, *any_port, url)
            said(log, r"(Successfully registered with master)")
        yield url


def told(master, folder, what):
    said = run(sys.executable, SCRIPT, master, folder, what, timeout_s=800)
    return json.loads(said.splitlines()[-1])


def test_a_second_attempt_adds_no_row_twice(master, tmp_path):
    scored = told(master, tmp_path, "score")
    assert scored["attempts"] == [0, 1], "there was no second attempt"
    assert scored["rows"] == [[i, 2.0 * i] for i in range(scored["count"])]
    assert scored["files_of_the_partition"] == 1


def test_a_rank_that_takes_long_is_not_started_again(master, tmp_path):
    assert told(master, tmp_path, "train") == {"ranks": ["0", "1"], "attempt": 1}

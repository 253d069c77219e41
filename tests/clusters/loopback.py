"""A standalone cluster on loopback, of two workers, which are two hosts to Spark."""

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
from typing import TYPE_CHECKING

import pyspark
from clusters.environment import run

from spark_dl.config.environment import point_executors_at_this_python

if TYPE_CHECKING:
    from collections.abc import Iterator

SPARK_HOME = os.path.dirname(pyspark.__file__)
DEADLINE_S = 240
SCRIPT = Path(__file__).parent / "speculating_job.py"
_DEPLOY = "org.apache.spark.deploy"


@contextlib.contextmanager
def loopback_cluster(folder: Path) -> Iterator[str]:
    """Give its master's URL; logs and work go to a folder."""
    point_executors_at_this_python(SPARK_HOME)
    any_port = ("--port", "0", "--webui-port", "0")
    with contextlib.ExitStack() as daemons:
        log = folder / "master.log"
        started(daemons, log, f"{_DEPLOY}.master.Master", "--host", "127.0.0.1", *any_port)
        url = said(log, r"Starting Spark master at (spark://\S+)")
        logs = {host: folder / f"{host}.log" for host in ("127.0.0.2", "127.0.0.3")}
        for host, log in logs.items():
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
            started(daemons, log, f"{_DEPLOY}.worker.Worker", *own, *any_port, url)
        for log in logs.values():
            said(log, r"(Successfully registered with master)")
        yield url


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


def told(master: str, folder: Path, what: str) -> dict[str, object]:
    """Return what came of scoring or training on a cluster that speculates."""
    answer = run(sys.executable, SCRIPT, master, folder, what, timeout_s=800)
    return json.loads(answer.splitlines()[-1])

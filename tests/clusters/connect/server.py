"""A server of Spark Connect with executors of its own, in a process as administrators start it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark
from clusters.connect.packages import connect_client
from clusters.environment import wait_for_port
from clusters.guide import blocks
from clusters.hadoop import HOST, Ports

from spark_dl._jvm import DELTA_CATALOG, DELTA_EXTENSION, delta_jars

if TYPE_CHECKING:
    from collections.abc import Iterator

SPARK_HOME = os.path.dirname(pyspark.__file__)
START_S = 240.0
STOP_S = 60.0
MASTER = "local-cluster[2,1,1024]"
SETTINGS = {
    "spark.driver.memory": "768m",
    "spark.driver.extraClassPath": ":".join(delta_jars()),
    "spark.executor.extraClassPath": ":".join(delta_jars()),
    "spark.sql.extensions": DELTA_EXTENSION,
    "spark.sql.catalog.spark_catalog": DELTA_CATALOG,
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.host": HOST,
    "spark.driver.bindAddress": HOST,
    "spark.ui.enabled": "false",
}


@contextlib.contextmanager
def connect_server(folder: Path, python: str = sys.executable) -> Iterator[str]:
    """Run a server with two executors of one core each, by the guide's command; gives its URL.

    Args:
        folder: an empty one, for its log and its tables.
        python: the executors'.
    """
    ports = Ports()
    port = ports.take()
    settings = {
        **SETTINGS,
        "spark.executorEnv.PYSPARK_PYTHON": python,
        "spark.pyspark.python": python,
        "spark.connect.grpc.binding.port": str(port),
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
    }
    lines = (f"{name} {value}\n" for name, value in settings.items())
    (folder / "spark-defaults.conf").write_text("".join(lines))
    log = folder / "server.log"
    # spark-submit becomes the server's JVM, which takes its executors with it
    with (
        open(log, "wb") as output,
        subprocess.Popen(
            ["/bin/bash", "-euc", blocks("connect.md", {"connect.master": MASTER})["server"]],
            cwd=folder,
            env=_environ(folder, python),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as server,
    ):
        try:
            wait_for_port(server, HOST, port, log, START_S)
            ports.close()
            yield f"sc://{HOST}:{port}"
        finally:
            ports.close()
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def _environ(folder: Path, python: str) -> dict[str, str]:
    programs = os.path.dirname(connect_client())  # `spark-dl jar` is one of the wheel's
    return {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
        "SPARK_HOME": SPARK_HOME,
        "SPARK_CONF_DIR": str(folder),
        "PYSPARK_PYTHON": python,
    }


def executor_logs(folder: Path) -> str:
    """Return what the executors of a server in a folder wrote, their tasks' logs too."""
    (application,) = set(re.findall(r"app ID (app-\S+)", (folder / "server.log").read_text()))
    logs = sorted((Path(SPARK_HOME) / "work" / application).glob("*/std*"))
    return "\n".join(path.read_text(errors="replace") for path in logs)

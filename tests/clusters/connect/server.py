"""A server of Spark Connect with executors of its own, in a process as administrators start it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pyspark
from clusters.environment import wait_for_port
from clusters.hadoop import HOST, Ports

from spark_dl._jvm import DELTA_CATALOG, DELTA_EXTENSION, connector_jar, delta_jars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPARK_HOME = os.path.dirname(pyspark.__file__)
START_S = 240.0
STOP_S = 60.0
SETTINGS = {
    "spark.jars": ",".join([*delta_jars(), connector_jar()]),
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
    """Run a server with two executors of one core; gives its URL.

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
    command = [
        *(os.path.join(SPARK_HOME, "bin", "spark-submit"), "--master", "local-cluster[2,1,1024]"),
        *("--driver-memory", "768m"),
        *(part for key, value in settings.items() for part in ("--conf", f"{key}={value}")),
        *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"),
    ]
    log = folder / "server.log"
    # spark-submit becomes the server's JVM, which takes its executors with it
    with (
        open(log, "wb") as output,
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "SPARK_HOME": SPARK_HOME, "PYSPARK_PYTHON": python},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as server,
    ):
        try:
            wait_for_port(server, HOST, port, log, START_S)
            ports.close()
            yield f"sc://{HOST}:{port}"
        finally:
            ports.close()
            server.terminate()
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()

"""A session of Spark Connect with Delta and the connector, and its server."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from spark_dl._jvm import DELTA_CATALOG, DELTA_EXTENSION, connector_jar, delta_jars
from spark_dl.config.environment import point_executors_at_this_python

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def connect_session(master: str, warehouse: str) -> Iterator[SparkSession]:
    """Give a client of a Connect server that runs in a process of its own, as pyspark starts it.

    Args:
        master: the server's.
        warehouse: folder of the server's tables.

    The variable CONNECT_SERVER_JAR names the server's own jar, which Spark 3.5 does not have.
    """
    import pyspark

    point_executors_at_this_python(os.path.dirname(pyspark.__file__))
    builder = SparkSession.builder.remote(master)
    own = os.environ.get("CONNECT_SERVER_JAR")
    jars = [*delta_jars(), connector_jar(), *([own] if own else [])]
    for key, value in {
        "spark.jars": ",".join(jars),
        "spark.sql.extensions": DELTA_EXTENSION,
        "spark.sql.catalog.spark_catalog": DELTA_CATALOG,
        "spark.sql.warehouse.dir": warehouse,
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }.items():
        builder = builder.config(key, value)
    with warnings.catch_warnings():
        # the client warns that it may not set what the server was started with
        warnings.simplefilter("ignore")
        session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()

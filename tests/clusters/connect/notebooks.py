"""Train from a Delta table and score it, by the notebooks, on a session that is given by its kind.

``python notebooks.py classic|connect FOLDER``; prints what the notebooks exited with.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from spark_dl._jvm import DELTA_CATALOG, DELTA_EXTENSION, connector_jar, delta_jars
from spark_dl.config.environment import point_executors_at_this_python
from spark_dl.session import embedded_session
from spark_dl.testing import run_notebook

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
MASTER = "local-cluster[2,1,1024]"


@contextlib.contextmanager
def connect_session(warehouse: str):
    """A Connect server in a process of its own, as pyspark starts it, and a client of it."""
    import pyspark

    point_executors_at_this_python(os.path.dirname(pyspark.__file__))
    builder = SparkSession.builder.remote(MASTER)
    for key, value in {
        "spark.jars": ",".join([*delta_jars(), connector_jar()]),
        "spark.sql.extensions": DELTA_EXTENSION,
        "spark.sql.catalog.spark_catalog": DELTA_CATALOG,
        "spark.sql.warehouse.dir": warehouse,
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
    }.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()


def main(kind: str, folder: str) -> None:
    warehouse = f"{folder}/warehouse"
    sessions = {
        "classic": lambda: embedded_session(MASTER, conf={"spark.sql.warehouse.dir": warehouse}),
        "connect": lambda: connect_session(warehouse),
    }
    with sessions[kind]() as spark:
        assert ("connect" in type(spark).__module__) == (kind == "connect")
        visits = spark.range(800).selectExpr(
            "id as visit", "cast(id % 11 as float) as pages", "cast(id % 5 > 2 as float) as bought"
        )
        visits.write.format("delta").saveAsTable("default.visits")
        train = {
            "table": "default.visits",
            "features": "pages",
            "folder": folder,
            "run_id": "7",
            "epochs": "2",
        }
        trained = run_notebook(NOTEBOOKS / "train_from_delta.py", spark, train)
        again = run_notebook(NOTEBOOKS / "train_from_delta.py", spark, train)
        score = {
            "table": "default.visits",
            "model": trained.task_values["model"],
            "output": "default.scored",
        }
        counts = []
        for more in (False, False, True):
            if more:
                visits.limit(100).write.format("delta").mode("append").saveAsTable("default.visits")
            shown = run_notebook(NOTEBOOKS / "score_on_a_schedule.py", spark, score).shown
            counts.append(sorted(row["count"] for row in shown[-1]))
        told = {"model": trained.exit_value, "again": again.exit_value, "counts": counts}
        print(json.dumps({**told, "kind": type(spark).__module__}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

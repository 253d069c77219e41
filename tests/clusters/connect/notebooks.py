"""All notebooks, to their ends, on a session that is given by its kind.

``python notebooks.py classic|connect FOLDER``; prints what the notebooks exited with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# this folder is on the path of a script that lies in it
from session import connect_session

import spark_dl
from spark_dl.session import embedded_session
from spark_dl.testing import run_notebook

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
MASTER = "local-cluster[2,1,1024]"


def where_ours_is(batches):
    import pyarrow as pa

    import spark_dl

    for _ in batches:
        yield pa.RecordBatch.from_pydict({"file": [spark_dl.__file__]})


def main(kind: str, folder: str) -> None:
    warehouse = f"{folder}/warehouse"
    sessions = {
        "classic": lambda: embedded_session(MASTER, conf={"spark.sql.warehouse.dir": warehouse}),
        "connect": lambda: connect_session(MASTER, warehouse),
    }
    with sessions[kind]() as spark:
        assert ("connect" in type(spark).__module__) == (kind == "connect")
        executors = spark.range(1).mapInArrow(where_ours_is, "file string").first().file
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
        quick = {"folder": f"{folder}/quick", "epochs": "1"}
        columns = run_notebook(NOTEBOOKS / "quick_start.py", spark, quick).shown[-1][0].asDict()
        told = {"model": trained.exit_value, "again": again.exit_value, "counts": counts}
        told["packages"] = [spark_dl.__file__, executors]
        print(json.dumps({**told, "quick_start": sorted(columns)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

"""The blocks of docs/databricks.md in a folder that holds them, its notebooks and its config.

``python databricks_page.py FOLDER``; `main` of the wheel's entry point finds the session active.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys

import spark_dl
from spark_dl.session import embedded_session

FOLDERS = ("dataset.path=dbfs:/digits/dataset", "runs=dbfs:/digits/runs")
ON_DBFS = [f"--set={folder}" for folder in (*FOLDERS, "output.path=dbfs:/digits/predictions")]


def where_ours_is(batches):
    import pyarrow as pa

    import spark_dl

    for _ in batches:
        yield pa.RecordBatch.from_pydict({"file": [spark_dl.__file__]})


def write_tables(spark):
    visits = spark.range(400).selectExpr(
        "id as visit",
        *(f"cast(id % {n} as float) as {name}" for n, name in ((11, "pages"), (7, "minutes"))),
        "cast(id % 3 as float) as referrals",
        "cast(id % 5 > 2 as float) as bought",
    )
    visits.write.format("delta").saveAsTable("default.visits")
    pixels = "transform(sequence(0, 63), i -> cast((id * 7 + i) % 17 as float)) as pixels"
    digits = spark.range(400).selectExpr("id", pixels, "id % 10 as digit")
    digits.write.format("delta").saveAsTable("default.digits")


def run_task(*words):
    """Run a Python wheel task, as a job's cluster does."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="spark-dl")
    code = entry.load()(list(words))
    if code != 0:
        sys.exit(code)


def main(folder):
    with open(f"{folder}/page.json") as file:
        page = json.load(file)
    with embedded_session(conf={"spark.sql.warehouse.dir": f"{folder}/warehouse"}) as spark:
        write_tables(spark)
        exec(page["notebook"], {"spark": spark})  # noqa: S102 (our own page)
        train, *words = json.loads(page["task"])
        for where in ([], ON_DBFS):
            for job in ("prepare", train, "infer"):
                run_task(job, *words, *where)
        for runs in ("/Volumes/main/default/spark_dl/digits/runs", "dbfs:/digits/runs"):
            run_task("runs", "list", "--runs", runs)
        executors = spark.range(1).mapInArrow(where_ours_is, "file string").first().file
        print(json.dumps({"packages": [spark_dl.__file__, executors]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

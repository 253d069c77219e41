"""Write Spark's classes into an archive, which later JVMs map instead of loading them one by one.

``python tools/archive_classes.py build/spark-classes.jsa``: the JVM of a small session writes it as
it ends (dynamic archive of class data, https://openjdk.org/jeps/350). A JVM of the same build that
starts with the same class path and ``-XX:SharedArchiveFile`` needs half the processor time of one
without, executors too. The tests' JVMs do (tests/shells.py).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from spark_dl.session import embedded_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from pyspark.sql import SparkSession

DEADLINE_S = 300
#: the log of a JVM that archives names a thousand classes that it leaves out
SILENT = "-Xlog:cds=off -Xlog:cds+dynamic=off"


def same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give the rows back."""
    yield from batches


def use(spark: SparkSession, folder: str) -> None:
    """Do a little of what tests do: a table, shards, shuffles, Python's workers."""
    rows = spark.range(1000).selectExpr("id", "cast(id as string) word", "array(id / 2) x")
    for name in ("parquet", "tfrecord"):
        path = f"{folder}/{name}"
        rows.repartition(2).write.format(name).option("allowLossy", "true").save(path)
        found = spark.read.format(name).load(path)
        found.groupBy("word").count().orderBy("word").toPandas()
        found.mapInArrow(same, found.schema).collect()
    spark.sparkContext.parallelize(range(4), 2).barrier().mapPartitions(list).count()


def main() -> None:
    """Write the archive; nothing is left where it does not come about."""
    path = Path(sys.argv[1]).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    options = f'{SILENT} "-XX:ArchiveClassesAtExit={part}"'
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_session("local[2]", conf={"spark.driver.extraJavaOptions": options}) as spark,
    ):
        jvm = spark.sparkContext._gateway.proc  # noqa: SLF001 - to see its end
        use(spark, folder)
    jvm.stdin.close()  # its sign to end
    jvm.wait(timeout=DEADLINE_S)
    part.replace(path)


if __name__ == "__main__":
    main()

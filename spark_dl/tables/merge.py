"""Merge rows into a Delta table by key.

Driver side.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Final

from spark_dl.errors import TableError, did_you_mean
from spark_dl.schema.derive import quoted
from spark_dl.tables.reader import delta_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyspark.sql import DataFrame, SparkSession

__all__ = ["check_columns", "merge_rows"]

#: The session's setting for what Delta keeps with a commit; MERGE has no options of its own.
_NOTE: Final = "spark.databricks.delta.commitInfo.userMetadata"


def check_columns(names: Sequence[str], df: DataFrame, *, setting: str, path: str) -> None:
    """Check that rows have the columns that a setting names.

    Raises:
        TableError: they lack some.
    """
    missing = [name for name in names if name not in df.columns]
    if missing:
        hint = did_you_mean(missing[0], df.columns)
        msg = (
            f"{path}: {setting} names {', '.join(map(repr, missing))}, which the rows to write do "
            f"not have{hint} (columns: {', '.join(df.columns)})"
        )
        raise TableError(msg)


def merge_rows(df: DataFrame, path: str, keys: Sequence[str], note: str) -> None:
    """Replace the rows of known keys and add the others, in one commit.

    Args:
        df: the rows; each is computed once, though Delta reads them twice.
        path: the Delta table, which must be there.
        keys: the columns of the key; null equals null.
        note: what Delta keeps with the commit.

    Raises:
        TableError: two rows have one key.
    """
    from pyspark import StorageLevel

    spark = df.sparkSession
    kept = df.persist(StorageLevel.DISK_ONLY)
    view = f"spark_dl_{uuid.uuid4().hex}"
    try:
        _refuse_doubles(kept, path, keys)
        kept.createTempView(view)
        same = " AND ".join(f"there.{quoted(key)} <=> new.{quoted(key)}" for key in keys)
        with _noted(spark, note):
            spark.sql(
                f"MERGE INTO {delta_name(path)} AS there USING {view} AS new ON {same} "
                "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
            ).collect()
    finally:
        spark.catalog.dropTempView(view)
        kept.unpersist()


def _refuse_doubles(df: DataFrame, path: str, keys: Sequence[str]) -> None:
    from pyspark.sql import functions as sf

    columns = [sf.col(quoted(key)) for key in keys]
    twice = df.groupBy(*columns).agg(sf.count(sf.lit(1)).alias("rows")).where("rows > 1").first()
    if twice is not None:
        values = ", ".join(f"{key}={twice[key]!r}" for key in keys)
        msg = (
            f"{path}: {twice['rows']} of the rows to merge have the key {values}: "
            "output.merge_on must name columns that tell rows apart; nothing was written"
        )
        raise TableError(msg)


@contextlib.contextmanager
def _noted(spark: SparkSession, note: str) -> Iterator[None]:
    before = spark.conf.get(_NOTE, None)
    spark.conf.set(_NOTE, note)
    try:
        yield
    finally:
        if before is None:
            spark.conf.unset(_NOTE)
        else:
            spark.conf.set(_NOTE, before)

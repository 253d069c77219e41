"""Read a table at a version that stays the same however often it is read.

Driver side. A Delta table is pinned to the newest version at the moment of reading, by SQL alone:
Delta's own Python package is not needed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spark_dl._jvm import brief_cause, require_delta, spark_errors
from spark_dl.errors import StorageError, TableError, did_you_mean
from spark_dl.storage import Storage, join, normalise, spark_uri

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from spark_dl.config import TableConfig

__all__ = ["PinnedTable", "delta_name", "describe_place", "read_table"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PinnedTable:
    """A table as it was read.

    Attributes:
        df: its rows, after the filter.
        table: its path or name; for a query, its text.
        format: ``delta``, ``parquet``, ``table`` (a catalog table without versions) or ``sql``.
        version: the Delta version that was read; `None` where there are no versions.
        where: the filter that was applied.
    """

    df: DataFrame
    table: str
    format: str
    version: int | None = None
    where: str | None = None


def read_table(spark: SparkSession, config: TableConfig) -> PinnedTable:
    """Read a table.

    Args:
        spark: the session.
        config: where the table is, its version and its filter.

    Returns:
        the rows, and what they were read from.

    Raises:
        TableError: there is no such table or version, or the filter or the query is wrong; the
            message says what is there instead.
        ConfigError: the session lacks Delta.
    """
    if config.sql is not None:
        found = PinnedTable(df=_query(spark, config.sql), table=config.sql, format="sql")
    elif config.name is not None:
        found = _from_catalog(spark, config.name, config.version)
    elif config.format == "delta":
        found = _delta(spark, normalise(config.path or ""), config.version)
    else:
        found = _files(spark, normalise(config.path or ""), config.format)
    version = "" if found.version is None else f" at version {found.version}"
    logger.info("reading %s%s", found.table, version)
    if config.where is None:
        return found
    return PinnedTable(
        df=_filter(found, config.where),
        table=found.table,
        format=found.format,
        version=found.version,
        where=config.where,
    )


def delta_name(path: str) -> str:
    """Return the SQL name of the Delta table at a normalised path."""
    return "delta.`" + spark_uri(path).replace("`", "``") + "`"


def describe_place(path: str) -> str:
    """Say what is at a path, for the error that something else was expected there."""
    try:
        storage = Storage(path)
        names = storage.list(path)
        if not storage.exists(path):
            parent, _, name = path.rpartition("/")
            near = did_you_mean(name, storage.list(parent)) if parent else ""
            return f"there is nothing at this path{near}"
    except (StorageError, OSError):
        return "what is there cannot be listed from here"
    if not names:
        return "this is an empty folder, or a file"
    tables = [name for name in names if storage.exists(join(path, name, "_delta_log"))]
    if "_delta_log" in names:
        found = "is a Delta table: use format: delta"
    elif any(name.endswith(".parquet") for name in names):
        found = "holds Parquet files: use format: parquet"
    elif tables:
        found = f"holds the Delta tables {', '.join(tables[:5])}: add one to the path"
    else:
        found = f"holds {', '.join(names[:5])}{', …' if names[5:] else ''}"
    return f"this folder {found}"


def _delta(spark: SparkSession, path: str, version: int | None) -> PinnedTable:
    require_delta(spark)
    newest = _newest_version(spark, delta_name(path))
    if newest is None:
        msg = f"{path} is no Delta table: {describe_place(path)}"
        raise TableError(msg)
    pinned = newest if version is None else version
    try:
        df = spark.read.format("delta").option("versionAsOf", pinned).load(spark_uri(path))
    except spark_errors() as error:
        raise _bad_version(path, pinned, error) from error
    return PinnedTable(df=df, table=path, format="delta", version=pinned)


def _newest_version(spark: SparkSession, name: str) -> int | None:
    """Return the newest version of a Delta table; `None` if it is no Delta table."""
    try:
        rows = spark.sql(f"DESCRIBE HISTORY {name} LIMIT 1").collect()
    except spark_errors() as error:
        logger.debug("%s has no history: %s", name, brief_cause(error))
        return None
    return int(rows[0]["version"]) if rows else None


def _bad_version(table: str, version: int, error: Exception) -> TableError:
    return TableError(f"{table} cannot be read at version {version}: {brief_cause(error)}")


def _files(spark: SparkSession, path: str, form: str) -> PinnedTable:
    place = describe_place(path)
    if "is a Delta table" in place:
        # its files would hold the rows of all versions together
        msg = f"{path} cannot be read as {form}: {place}"
        raise TableError(msg)
    try:
        df = spark.read.format(form).load(spark_uri(path))
    except spark_errors() as error:
        msg = f"{path} cannot be read as {form} ({brief_cause(error)}): {place}"
        raise TableError(msg) from error
    return PinnedTable(df=df, table=path, format=form)


def _from_catalog(spark: SparkSession, name: str, version: int | None) -> PinnedTable:
    try:
        newest_rows = spark.read.table(name)
    except spark_errors() as error:
        msg = f"there is no table {name}{_near(spark, name)} ({brief_cause(error)})"
        raise TableError(msg) from error
    newest = _newest_version(spark, name)
    if newest is None:
        if version is not None:
            msg = f"{name} is no Delta table and has no versions: remove `version`"
            raise TableError(msg)
        return PinnedTable(df=newest_rows, table=name, format="table")
    pinned = newest if version is None else version
    try:
        df = spark.read.option("versionAsOf", pinned).table(name)
    except spark_errors() as error:
        raise _bad_version(name, pinned, error) from error
    return PinnedTable(df=df, table=name, format="delta", version=pinned)


def _near(spark: SparkSession, name: str) -> str:
    schema, _, table = name.rpartition(".")
    try:
        listed = spark.catalog.listTables(schema or None)
    except spark_errors():
        return ""
    return did_you_mean(table, [found.name for found in listed])


def _query(spark: SparkSession, text: str) -> DataFrame:
    try:
        return spark.sql(text)
    except spark_errors() as error:
        msg = f"the query of `table.sql` cannot be run: {brief_cause(error)}"
        raise TableError(msg) from error


def _filter(found: PinnedTable, where: str) -> DataFrame:
    try:
        return found.df.where(where)
    except spark_errors() as error:
        columns = ", ".join(found.df.columns)
        msg = (
            f"{found.table}: the condition where={where!r} cannot be used: {brief_cause(error)} "
            f"(columns: {columns})"
        )
        raise TableError(msg) from error

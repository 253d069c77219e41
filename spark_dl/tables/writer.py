"""Write a table so that the same rows are not added twice.

Driver side. The name of a write is its `scoring_id`. In Delta it is a transaction id, which Delta
itself remembers; in Parquet it is looked for among the rows (`files`).
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from spark_dl._jvm import brief_cause, require_delta, spark_errors
from spark_dl.schema.derive import quoted
from spark_dl.storage import normalise, spark_uri
from spark_dl.tables.files import partitioned, rows_of_files, write_files
from spark_dl.tables.merge import check_columns, merge_rows
from spark_dl.tables.reader import delta_name
from spark_dl.tables.written import SCORING_ID, WrittenTable, cannot_write, transaction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame, SparkSession

    from spark_dl.config import OutputConfig

__all__ = ["write_table", "written_before"]

logger = logging.getLogger(__name__)

_TXN_VERSION: Final = 1
#: Commits that are looked at where the newest ones tell: a stream's table has very many.
_RECENT: Final = 50
#: Commits that leave a table's rows as they are.
_UPKEEP: Final = frozenset(
    {"OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES"}
)


def write_table(
    df: DataFrame,
    output: OutputConfig,
    *,
    scoring_id: str,
    properties: Mapping[str, str] | None = None,
) -> WrittenTable:
    """Write rows to a Delta or Parquet table, once for each `scoring_id`.

    Args:
        df: the rows. For Parquet they need a column ``scoring_id``.
        output: path, format and mode of the table.
        scoring_id: name of this write. With mode ``append`` a second write of the same name adds
            nothing; with ``overwrite`` and ``merge`` nothing is done when the table's newest rows
            are of that name.
        properties: facts about the write. Delta keeps them in the commit (`userMetadata`), and as
            table properties when the write makes the table; Parquet keeps none.

    Returns:
        the rows and the version.

    Raises:
        TableError: the table cannot be written; nothing was added.
        ConfigError: the session lacks Delta.
    """
    path = normalise(output.path)
    spark = df.sparkSession
    check_columns(output.partition_by, df, setting="output.partition_by", path=path)
    check_columns(output.merge_on or (), df, setting="output.merge_on", path=path)
    if output.format == "delta":
        require_delta(spark)
        written = _write_delta(df, path, output, scoring_id, dict(properties or {}))
    else:
        written = write_files(df, path, output, scoring_id)
    if written.already_written:
        logger.info("%s holds scoring %s already: nothing was added", path, scoring_id)
    else:
        logger.info("wrote %s rows to %s (scoring %s)", written.rows, path, scoring_id)
    return written


def written_before(
    spark: SparkSession, output: OutputConfig, scoring_id: str
) -> WrittenTable | None:
    """Return what an earlier write of a name has done, `None` if there was none.

    Args:
        spark: the session.
        output: the table.
        scoring_id: name of the write.
    """
    path = normalise(output.path)
    if output.format == "delta":
        history = _history(spark, path)
        names = [_scoring(entry) for entry in history]
        appended = output.mode == "append" and scoring_id in names
        known = appended or _newest_scoring(history) == scoring_id
        return _found(history, path, scoring_id, already_written=True) if known else None
    rows = rows_of_files(spark, path, output, scoring_id)
    return WrittenTable(path=path, rows=rows, version=None, already_written=True) if rows else None


def _write_delta(
    df: DataFrame, path: str, output: OutputConfig, scoring_id: str, properties: dict[str, str]
) -> WrittenTable:
    before = _history(df.sparkSession, path, limit=_RECENT)
    mode = output.mode
    if mode != "append" and _newest_scoring(before) == scoring_id:
        return _found(before, path, scoring_id, already_written=True)
    note = {SCORING_ID: scoring_id, "properties": properties}
    options = {"userMetadata": json.dumps(note, sort_keys=True)}
    if mode == "append":
        # Delta leaves out a transaction whose version is not above the last one of its id. An
        # overwrite is none: when another scoring has replaced the rows, the first may come back.
        options |= {"txnAppId": transaction(scoring_id), "txnVersion": str(_TXN_VERSION)}
    try:
        if not before:
            _create(df, path, properties, output.partition_by)
            before = _history(df.sparkSession, path, limit=_RECENT)
        if mode == "merge":
            merge_rows(df, path, output.merge_on or (), options["userMetadata"])
        else:
            writer = df.write.format("delta").mode(mode).options(**options)
            partitioned(writer, output).save(spark_uri(path))
    except spark_errors() as error:
        raise cannot_write(path, mode, error) from error
    newest = max(entry["version"] for entry in before)
    after = _history(df.sparkSession, path, limit=_RECENT)
    mine = [entry for entry in after if entry["version"] > newest and _scoring(entry) == scoring_id]
    found = mine or _history(df.sparkSession, path)
    return _found(found, path, scoring_id, already_written=not mine)


def _create(
    df: DataFrame, path: str, properties: Mapping[str, str], partition_by: Sequence[str]
) -> None:
    """Make an empty table with the properties.

    Not in one commit with the rows: such a commit keeps no `userMetadata`, and where it fails it
    leaves a folder that cannot be written any more. Nor afterwards: ALTER TABLE needs a Delta that
    was compiled for this very Spark (Delta 4.1 and 4.2 on Spark 4.1.4 end it with
    NoClassDefFoundError: IgnoreCachedData).
    """
    from pyspark.sql import functions as sf

    writer = df.limit(0).writeTo(delta_name(path)).using("delta")
    for key, value in properties.items():
        writer = writer.tableProperty(key, value)
    if partition_by:
        first, *more = (sf.col(quoted(name)) for name in partition_by)
        writer = writer.partitionedBy(first, *more)
    try:
        writer.create()
    except spark_errors():
        if not _history(df.sparkSession, path):  # else another writer was faster
            raise


def _history(spark: SparkSession, path: str, *, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the commits of a Delta table, newest first; none if it is no Delta table."""
    newest = "" if limit is None else f" LIMIT {limit}"
    try:
        rows = spark.sql(f"DESCRIBE HISTORY {delta_name(path)}{newest}").collect()
    except spark_errors() as error:
        logger.debug("%s has no history: %s", path, brief_cause(error))
        return []
    return [row.asDict() for row in rows]


def _newest_scoring(history: list[dict[str, Any]]) -> str | None:
    """Return the scoring that wrote the rows which the table has now."""
    changes = (entry for entry in history if entry["operation"] not in _UPKEEP)
    return next((_scoring(entry) for entry in changes), None)


def _scoring(entry: Mapping[str, Any]) -> str | None:
    try:
        note = json.loads(entry["userMetadata"] or "")
    except ValueError:
        return None
    return note.get(SCORING_ID) if isinstance(note, dict) else None


def _found(
    history: list[dict[str, Any]], path: str, scoring_id: str, *, already_written: bool
) -> WrittenTable:
    entry = next((entry for entry in history if _scoring(entry) == scoring_id), None)
    metrics = (entry["operationMetrics"] or {}) if entry else {}
    # a merge's output rows are those of the files that it wrote anew
    rows = metrics.get("numSourceRows", metrics.get("numOutputRows"))
    return WrittenTable(
        path=path,
        rows=None if rows is None else int(rows),
        version=int(entry["version"]) if entry else None,
        already_written=already_written,
    )

"""Write a table of plain files, such as Parquet, so that each write happens once and whole.

Driver side. Spark writes the rows into a folder of their own: one that readers of the table pass
over where files are added, one beside the table where it is made or replaced. When they are all
there a note in that folder says so, and from then on the write is decided: its files are moved into
the table, and where that was cut short, whoever asks for the same write again goes on with it. A
folder without a note is what a write left that was cut short before; it is thrown away.
"""

from __future__ import annotations

import json
import logging
import posixpath
from typing import TYPE_CHECKING, Final

from spark_dl._jvm import spark_errors
from spark_dl.errors import TableError
from spark_dl.observed import Observed
from spark_dl.storage import Storage, join, spark_uri
from spark_dl.tables.written import SCORING_ID, WrittenTable, cannot_write, transaction

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameWriter, SparkSession

    from spark_dl.config import OutputConfig

__all__ = ["partitioned", "rows_of_files", "write_files"]

logger = logging.getLogger(__name__)

#: Beginnings of the names that Spark's readers pass over.
_HIDDEN: Final = ("_", ".")
_NOTE: Final = "_spark_dl_write.json"


def write_files(df: DataFrame, path: str, output: OutputConfig, scoring_id: str) -> WrittenTable:
    """Write rows to a table of files, once for each `scoring_id`.

    Args:
        df: the rows, with a column ``scoring_id``.
        path: the table, normalised.
        output: format and mode of the table.
        scoring_id: name of this write.

    Returns:
        the rows.

    Raises:
        TableError: the table cannot be written; nothing was added.
    """
    if SCORING_ID not in df.columns:
        msg = (
            f"{path}: rows for a {output.format} table need a column {SCORING_ID!r}, by which a "
            "rerun is known; add it, or write a Delta table"
        )
        raise TableError(msg)
    storage = Storage(path)
    if storage.exists(join(path, "_delta_log")):
        msg = f"{path} is a Delta table: set output.format to delta, or choose another path"
        raise TableError(msg)
    table, done = _look(df.sparkSession, path, output, scoring_id)
    if done:
        return WrittenTable(path=path, rows=done, version=None, already_written=True)
    if output.mode == "append" and table is not None:
        _check_columns(df, table, path)
    inside, beside = places = _places(path, scoring_id)
    for place in places:
        storage.remove(place)
    place = inside if output.mode == "append" and storage.exists(path) else beside
    rows = _write_apart(df, storage, place, path, output)
    _land(df.sparkSession, storage, place, path, output.mode)
    return WrittenTable(path=path, rows=rows, version=None)


def rows_of_files(spark: SparkSession, path: str, output: OutputConfig, scoring_id: str) -> int:
    """Count the rows of a write in a table of files.

    A write that was decided, and cut short while its files were moved, is brought to its end.

    Args:
        spark: the session.
        path: the table, normalised.
        output: format and mode of the table.
        scoring_id: name of the write.

    Raises:
        TableError: the table cannot be read, though its rows are to be kept.
    """
    return _look(spark, path, output, scoring_id)[1]


def _look(
    spark: SparkSession, path: str, output: OutputConfig, scoring_id: str
) -> tuple[DataFrame | None, int]:
    """Return the table, if one can be read, and how many of its rows are those of a write."""
    from pyspark.sql import functions as sf

    storage = Storage(path)
    for place in _places(path, scoring_id):
        if storage.exists(join(place, _NOTE)):
            logger.info("%s: the write %s was cut short: it is finished", path, scoring_id)
            note = json.loads(storage.read_text(join(place, _NOTE)))
            _land(spark, storage, place, path, note["mode"])
    if all(name.startswith(_HIDDEN) for name in storage.list(path)):
        return None, 0
    try:
        table = spark.read.format(output.format).load(spark_uri(path))
        if SCORING_ID not in table.columns:
            return table, 0
        return table, int(table.where(sf.col(SCORING_ID) == scoring_id).count())
    except spark_errors() as error:
        if output.mode == "overwrite":
            return None, 0  # whatever lies there is replaced
        raise cannot_write(path, output.mode, error) from error


def partitioned(writer: DataFrameWriter, output: OutputConfig) -> DataFrameWriter:
    """Lay a table's files apart as its settings say."""
    return writer.partitionBy(*output.partition_by) if output.partition_by else writer


def _places(path: str, scoring_id: str) -> tuple[str, str]:
    """Return where a write may lie before it is in the table: within the table, and beside it."""
    name = transaction(scoring_id)
    return join(path, f"_{name}"), f"{path}.{name}"


def _check_columns(df: DataFrame, table: DataFrame, path: str) -> None:
    """Refuse to append rows of other columns, which would make the table unreadable."""
    there, new = dict(table.dtypes), dict(df.dtypes)
    if there != new:
        differing = sorted(name for name in there | new if there.get(name) != new.get(name))
        msg = (
            f"{path} has other columns than the rows to append ({', '.join(differing)} differ): "
            "write to another path, or set output.mode to overwrite"
        )
        raise TableError(msg)


def _write_apart(
    df: DataFrame, storage: Storage, place: str, path: str, output: OutputConfig
) -> int:
    """Write the rows, and the note that decides; return how many they are."""
    from pyspark.sql import functions as sf

    observed = Observed(sf.count(sf.lit(1)).alias("rows"))
    folder = spark_uri(place)
    try:
        partitioned(observed.on(df).write.format(output.format), output).save(folder)
        reader = df.sparkSession.read.schema(df.schema).format(output.format)
        seen = observed.seen(lambda: reader.load(folder))
    except spark_errors() as error:
        storage.remove(place)
        raise cannot_write(path, output.mode, error) from error
    storage.write_atomic(join(place, _NOTE), json.dumps({"mode": output.mode}))
    return int(seen["rows"])


def _land(spark: SparkSession, storage: Storage, place: str, path: str, mode: str) -> None:
    """Move files that were decided into the table; each step may be done a second time."""
    if mode == "overwrite":
        storage.remove(path)
    if storage.exists(path):
        for name in storage.files(place):
            if not posixpath.basename(name).startswith(_HIDDEN):
                storage.move(join(place, name), join(path, name))
        storage.remove(place)
    else:
        storage.commit(place, path)
        storage.remove(join(path, _NOTE))
    spark.catalog.refreshByPath(spark_uri(path))

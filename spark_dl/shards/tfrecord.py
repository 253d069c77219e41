"""TFRecord files as tables, without the options' long names: what the connector does, from Python.

Driver side. For a dataset to train on, with splits and a manifest, use `spark_dl.prepare`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from spark_dl._jvm import ensure_connector
from spark_dl.shards.plan import RECORD_FORMAT
from spark_dl.storage import normalise, spark_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

__all__ = ["read_tfrecord", "write_tfrecord"]


def write_tfrecord(  # noqa: PLR0913  one keyword a setting
    df: DataFrame,
    path: str,
    *,
    mode: Literal["append", "overwrite", "ignore", "error"] = "error",
    partition_by: Sequence[str] = (),
    rows_per_record: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    allow_lossy: bool = False,
    codec: str | None = None,
    **options: str,
) -> None:
    """Write a table as TFRecord files.

    Args:
        df: the rows.
        path: folder to write.
        mode: what to do if the folder is there.
        partition_by: columns that become folders.
        rows_per_record: rows that are packed into a record.
        shapes: dimensions of the array columns whose rows all have the same.
        allow_lossy: whether double, decimal and vectors may become 32-bit floats.
        codec: ``gzip`` or ``deflate``, which TensorFlow can read, ``zstd``, which it cannot, or the
            class name of a Hadoop codec.
        **options: further options of the connector, such as ``nulls="omit"`` (docs/tfrecord.md).

    Example:
        >>> write_tfrecord(df, "/data/rows", rows_per_record=1000)  # doctest: +SKIP
    """
    ensure_connector(df.sparkSession)
    settings = {
        "rowsPerRecord": rows_per_record,
        "shapes": json.dumps({name: list(shape) for name, shape in shapes.items()})
        if shapes
        else None,
        "allowLossy": "true" if allow_lossy else None,
        "codec": codec,
        **options,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    writer = df.write.mode(mode).format(RECORD_FORMAT).options(**given)
    writer.partitionBy(*partition_by).save(spark_uri(normalise(path)))


def read_tfrecord(
    spark: SparkSession, path: str, schema: StructType | str | None = None, **options: str
) -> DataFrame:
    """Read TFRecord files as a table.

    Args:
        spark: the session.
        path: a folder or a file.
        schema: the columns; without it the side-file says them, or a sample of the records.
        **options: options of the connector, such as ``mode="DROPMALFORMED"`` (docs/tfrecord.md).

    Example:
        >>> read_tfrecord(spark, "/data/rows").count()  # doctest: +SKIP
        1000
    """
    ensure_connector(spark)
    reader = spark.read.format(RECORD_FORMAT).options(**options)
    return (reader.schema(schema) if schema else reader).load(spark_uri(normalise(path)))

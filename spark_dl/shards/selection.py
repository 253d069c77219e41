"""The rows of a table that fell into one split of a dataset, told apart as `prepare` did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spark_dl.errors import DataError, SchemaError
from spark_dl.schema.derive import quoted, select_columns
from spark_dl.shards.splits import given_split, hash_column, split_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from spark_dl.shards.manifest import Manifest

__all__ = ["rows_of_split"]


def rows_of_split(df: DataFrame, manifest: Manifest, split: str) -> DataFrame:
    """Return the rows of `df` that `prepare` put into `split`, with all their columns.

    Args:
        df: the table, or a later version of it: a row's split depends on the row alone.
        manifest: of the dataset; its seed, splits and identifying columns decide.
        split: name of the split.

    Raises:
        DataError: the dataset has no such split.
        SchemaError: a column that identifies rows, or says their split, is missing.
    """
    from pyspark.sql import functions as sf

    if split not in manifest.splits:
        msg = f"the dataset has no split {split!r} (splits: {', '.join(manifest.splits)})"
        raise DataError(msg)
    if manifest.split_column is not None:
        return df.where(given_split(df, manifest.split_column) == split)
    deciding = manifest.spec.ids or manifest.spec.entries
    for entry in deciding:
        if entry.column not in df.columns:
            raise SchemaError.missing_column(entry.column, df.columns, role="split-deciding")
    own = "spark_dl_row"  # the table's columns, out of reach of the spec's names
    names = [entry.name for entry in deciding]
    flat = df.select(
        sf.struct(*[sf.col(quoted(name)) for name in df.columns]).alias(own),
        *select_columns(deciding),
    )
    chosen = split_column(hash_column("", manifest.seed, names), manifest.splits)
    return flat.where(chosen == split).select(f"{own}.*")

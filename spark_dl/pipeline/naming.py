"""Names of our Spark jobs in Spark's own pages."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from spark_dl._jvm import is_connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

__all__ = ["described", "short_name"]

_DESCRIPTION: Final = "spark.job.description"
_VAGUE: Final = frozenset({"dataset", "data", "shards", "table", "predictions", "output"})


def short_name(path: str) -> str:
    """Return what to call a folder: its name, or that above it where its own says nothing.

    Example:
        >>> short_name("/data/digits"), short_name("hdfs:///shop/visits/dataset")
        ('digits', 'visits')
    """
    names = [name for name in path.rstrip("/").split("/") if name]
    telling = [name for name in names[-2:] if name.lower() not in _VAGUE]
    return (telling or names or [path])[-1]


@contextlib.contextmanager
def described(spark: SparkSession, text: str) -> Iterator[None]:
    """Name the Spark jobs of this thread, unless the caller has; Connect has no such names.

    Args:
        spark: the session.
        text: the name, such as ``prepare digits``.
    """
    if is_connect(spark) or spark.sparkContext.getLocalProperty(_DESCRIPTION):
        yield
        return
    context = spark.sparkContext
    context.setLocalProperty(_DESCRIPTION, f"spark_dl: {text}")
    try:
        yield
    finally:
        context.setLocalProperty(_DESCRIPTION, None)  # type: ignore[arg-type] # Spark's way to unset

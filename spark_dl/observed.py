"""Aggregates over the rows that a write takes, known once they are written.

Driver side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spark_dl._jvm import is_connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import Column, DataFrame, SparkSession

__all__ = ["Observed"]


class Observed:
    """What passes a `DataFrame` while it is written.

    Clients of Spark Connect 3.5 cannot observe; there the written rows are read once more.

    Args:
        columns: aggregates with names of their own.
    """

    def __init__(self, *columns: Column) -> None:
        """Keep the aggregates; nothing is computed before the write."""
        from pyspark.sql import Observation

        self._columns = columns
        self._observation = Observation()
        self._passed = False

    def on(self, df: DataFrame) -> DataFrame:
        """Return the rows, which are looked at when they are written."""
        self._passed = can_observe(df.sparkSession)
        return df.observe(self._observation, *self._columns) if self._passed else df

    def seen(self, read_back: Callable[[], DataFrame]) -> Mapping[str, Any]:
        """Return the values by name, after the write.

        Args:
            read_back: gives the written rows, for those who could not observe.
        """
        if self._passed:
            return self._observation.get
        return read_back().agg(*self._columns).first().asDict()  # type: ignore[union-attr] # one row


def can_observe(spark: SparkSession) -> bool:
    """Whether a session tells what an `Observation` saw."""
    return not (is_connect(spark) and spark.version.startswith("3."))

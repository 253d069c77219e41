"""A dataset: a folder of TFRecord shards with a manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spark_dl.schema.derive import read_schema
from spark_dl.shards.manifest import Manifest
from spark_dl.storage import join, normalise, spark_uri

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from spark_dl.schema import FeatureSpec

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """A finished dataset.

    Attributes:
        path: its folder.
        manifest: what the folder holds.
        spark: session that `table` uses; `None` is the active one.

    Example:
        >>> Dataset.open("/data/digits").table("train")  # doctest: +SKIP
        DataFrame[image: array<float>, digit: int]
    """

    path: str
    manifest: Manifest
    spark: SparkSession | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, path: str, spark: SparkSession | None = None) -> Dataset:
        """Open the dataset in a folder.

        Args:
            path: the folder.
            spark: session that `table` uses; `None` is the active one.

        Raises:
            ManifestError: the folder holds no finished dataset.
        """
        folder = normalise(path)
        return cls(folder, Manifest.read(folder), spark)

    @property
    def spec(self) -> FeatureSpec:
        """The columns."""
        return self.manifest.spec

    def shard_paths(self, split: str) -> list[str]:
        """Return the full paths of a split's shards, in the order that numbers the rows.

        Raises:
            DataError: there is no such split, or it is empty.
        """
        return [join(self.path, shard.path) for shard in self.manifest.split(split)]

    def table(self, split: str) -> DataFrame:
        """Return the rows of a split as a table, with the types that were written.

        The order of the rows is Spark's.

        Args:
            split: name of the split.

        Raises:
            DataError: there is no such split, or it is empty.
            ConfigError: there is no Spark session.
        """
        from spark_dl._jvm import active_session, ensure_connector

        paths = [spark_uri(path) for path in self.shard_paths(split)]
        spark = self.spark or active_session()
        ensure_connector(spark)
        schema = read_schema(self.spec.entries)
        return spark.read.schema(schema).format(self.manifest.record_format).load(paths)

"""What makes a dataset the one that it is: columns, splits, seed, and where the rows come from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spark_dl.shards.manifest import FORMAT_VERSION, Source
from spark_dl.shards.placement import (
    MAX_PACK_ROWS,
    MIN_SHARDS,
    PACK_BYTES,
    TARGET_SHARD_BYTES,
    pack_size,
)
from spark_dl.shards.splits import hash_column, split_column

if TYPE_CHECKING:
    from pyspark.sql import Column

    from spark_dl.schema import FeatureSpec

__all__ = ["RECORD_FORMAT", "DatasetPlan"]

RECORD_FORMAT: Final = "tfrecord"


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """What is to be written, apart from the rows.

    Attributes:
        path: the dataset's folder.
        spec: its columns.
        splits: name to fraction; empty until the rows were read where a column says the split.
        min_shards: shards that a split has at least, if it has so many rows.
        split_column: the table's column that says each row's split; `None` where the hash does.
        seed: seed of the split and of the order.
        rows_per_record: rows of a record; `None` goes by their size.
    """

    path: str
    spec: FeatureSpec
    splits: dict[str, float]
    seed: int
    rows_per_record: int | None = None
    min_shards: int = 1
    split_column: str | None = None

    @property
    def names(self) -> list[str]:
        """The columns that are written, in order."""
        return [entry.name for entry in self.spec.entries]

    def own_name(self, wish: str) -> str:
        """Return a name for a column of ours that no column of the spec has."""
        taken = {name.casefold() for name in self.names}
        while wish in taken:
            wish += "_"
        return wish

    @property
    def given(self) -> str:
        """The column of ours that holds the split that the table gives a row."""
        return self.own_name("given_split")

    @property
    def keys(self) -> list[str]:
        """The columns that decide a row's split: its ids, or all of them."""
        return [entry.name for entry in self.spec.ids] or self.names

    def rows_in_record(self, rows: int, size_bytes: int) -> int:
        """Return how many rows a record holds.

        Args:
            rows: rows of all splits.
            size_bytes: about how many bytes they have.
        """
        return self.rows_per_record or pack_size(rows, size_bytes)

    def split(self) -> Column:
        """Return each row's split, from the written columns or the one that says it."""
        if self.split_column is not None:
            from pyspark.sql import functions as sf

            return sf.col(self.given)
        return split_column(hash_column("", self.seed, self.keys), self.splits)

    def fingerprint(self, source: Source) -> str:
        """Return what is equal for two datasets only if their rows and their bytes are.

        Args:
            source: where the rows come from; its content counts only where no version pins it.
        """
        hidden = {"content_hash"} if source.pinned else set()
        shards = max(MIN_SHARDS, self.min_shards)
        facts = {
            "source": source.model_dump(mode="json", exclude=hidden),
            "spec": self.spec.model_dump(mode="json"),
            "splits": self.split_column or list(self.splits.items()),
            "seed": self.seed,
            "format": [RECORD_FORMAT, FORMAT_VERSION, TARGET_SHARD_BYTES, shards],
            "packs": [self.rows_per_record, PACK_BYTES, MAX_PACK_ROWS],
        }
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

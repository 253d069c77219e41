"""TFRecord shards, their manifest, and which rank reads which row."""

from spark_dl.shards.manifest import Manifest, Shard, Source

__all__ = ["Manifest", "Shard", "Source"]

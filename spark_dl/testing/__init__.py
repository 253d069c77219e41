"""Test kit: what our own tests use, public so that a user's project can test with it."""

from spark_dl.testing.ranks import run_ranks
from spark_dl.testing.shards import dense_entries, write_shards

__all__ = ["dense_entries", "run_ranks", "write_shards"]

"""Test kit: what our own tests use, public so that a user's project can test with it."""

from spark_dl.testing.examples import decode_records, encode_records
from spark_dl.testing.notebooks import NotebookRun, run_notebook
from spark_dl.testing.processes import descendants, is_alive
from spark_dl.testing.ranks import run_ranks
from spark_dl.testing.shards import dense_entries, write_shards

__all__ = [
    "NotebookRun",
    "decode_records",
    "dense_entries",
    "descendants",
    "encode_records",
    "is_alive",
    "run_notebook",
    "run_ranks",
    "write_shards",
]

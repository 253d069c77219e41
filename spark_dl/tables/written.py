"""What a write to a table is called, and what became of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from spark_dl._jvm import brief_cause
from spark_dl.errors import TableError

__all__ = ["SCORING_ID", "WrittenTable", "cannot_write", "transaction"]

#: Column, and key of a commit's note, that hold the name of a write.
SCORING_ID: Final = "scoring_id"


@dataclass(frozen=True, kw_only=True)
class WrittenTable:
    """What became of a write.

    Attributes:
        path: the table.
        rows: rows that this scoring has written, now or before; `None` when a table's history no
            longer says.
        version: the Delta version that holds them; `None` for Parquet, or as for `rows`.
        already_written: whether an earlier run had written them, so that nothing was added.
    """

    path: str
    rows: int | None
    version: int | None
    already_written: bool = False


def transaction(scoring_id: str) -> str:
    """Return a name for a write that is fit for file names and for Delta.

    Example:
        >>> transaction("nightly 2026-11-26")
        'spark_dl-37ead81f01acba52003b9143300e7be6'
    """
    return "spark_dl-" + hashlib.sha256(scoring_id.encode()).hexdigest()[:32]


def cannot_write(path: str, mode: str, error: Exception) -> TableError:
    """Return the error of a write that Spark ended."""
    return TableError(f"{path} cannot be written ({mode}): {brief_cause(error)}")

"""The id of a scoring: the same model over the same rows into the same place."""

from __future__ import annotations

import hashlib
import json
import secrets

__all__ = ["default_scoring_id", "random_scoring_id"]


def default_scoring_id(
    checksum: str, *, table: str, version: int | str, where: str | None, output: str
) -> str:
    """Return a table's scoring id: equal for a rerun, another for tomorrow's rows.

    Args:
        checksum: checksum of the model's folder.
        table: path or name of the table.
        version: its pinned version; where the format has none, what identifies its rows.
        where: the filter on it.
        output: path or name of the table of predictions.

    Example:
        >>> default_scoring_id("sha256:0", table="/t", version=3, where=None, output="/o")
        'score-4f3bbd0a51f6a0bf'
    """
    facts = json.dumps([checksum, table, version, where, output])
    return f"score-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def random_scoring_id() -> str:
    """Return a new id: scoring rows of unknown origin is a scoring of its own each time."""
    return f"score-{secrets.token_hex(8)}"

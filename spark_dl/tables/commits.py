"""What a Delta table's own log says about who wrote it; read without Spark."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from spark_dl.errors import StorageError, TableError
from spark_dl.storage import Storage, join, normalise
from spark_dl.tables.reader import describe_place

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["Commit", "scoring_commits"]

_LOG: Final = "_delta_log"
_PREFIX: Final = "spark_dl."


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A version of a predictions table that a scoring made.

    Attributes:
        version: the table's version.
        time: when, ISO 8601 in UTC; empty if the log does not say.
        operation: Delta's word for it, such as ``WRITE`` or ``MERGE``.
        rows: rows that it wrote; `None` if the log does not say.
        scoring_id: name of the scoring.
        facts: what the scoring said about itself, such as ``model_path`` and ``source``.
    """

    version: int
    time: str
    operation: str
    rows: int | None
    scoring_id: str
    facts: Mapping[str, str] = field(default_factory=dict)


def scoring_commits(path: str | os.PathLike[str]) -> list[Commit]:
    """Return the versions of a table that scorings made, newest first.

    Delta removes old commits from its log in time (30 days by default): then the oldest are gone.

    Args:
        path: the table's folder.

    Raises:
        TableError: it is no Delta table, or no scoring of ours has written it.
    """
    root = normalise(path)
    storage = Storage(root)
    log = join(root, _LOG)
    names = [name for name in storage.list(log) if name.endswith(".json") and name[:20].isdecimal()]
    if not names:
        msg = (
            f"{root} is no Delta table, and only those keep who wrote them: {describe_place(root)}"
        )
        raise TableError(msg)
    found = [_commit(storage, join(log, name), int(name[:20])) for name in sorted(names)]
    commits = [commit for commit in reversed(found) if commit is not None]
    if not commits:
        msg = (
            f"{root}: none of its {len(names)} commits is a scoring by spark-dl; "
            "tables that `infer` or `score_stream` wrote have one for each scoring"
        )
        raise TableError(msg)
    return commits


def _commit(storage: Storage, path: str, version: int) -> Commit | None:
    """Return a commit if a scoring made it."""
    try:
        lines = storage.read_text(path).splitlines()
    except StorageError:  # Delta has just removed it
        return None
    actions = (json.loads(line) for line in lines if "commitInfo" in line)
    info = next((action["commitInfo"] for action in actions if "commitInfo" in action), None)
    note = _note(info) if info else None
    if info is None or note is None:
        return None
    metrics = info.get("operationMetrics") or {}
    rows = metrics.get("numSourceRows", metrics.get("numOutputRows"))
    stamp = info.get("timestamp")
    return Commit(
        version=version,
        time="" if stamp is None else datetime.fromtimestamp(stamp / 1000, UTC).isoformat(),
        operation=str(info.get("operation", "")),
        rows=None if rows is None else int(rows),
        scoring_id=str(note["scoring_id"]),
        facts={
            name.removeprefix(_PREFIX): str(value)
            for name, value in (note.get("properties") or {}).items()
        },
    )


def _note(info: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        note = json.loads(info.get("userMetadata") or "")
    except ValueError:
        return None
    return note if isinstance(note, dict) and "scoring_id" in note else None

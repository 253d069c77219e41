"""Which runs `spark-dl runs clean` removes: a pure decision over the catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spark_dl.cli.runs.catalogue import parse_time
from spark_dl.errors import ConfigError
from spark_dl.storage import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spark_dl.cli.runs.catalogue import Entry

__all__ = ["CleanRule", "parse_age", "to_remove"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, kw_only=True)
class CleanRule:
    """What to remove.

    Attributes:
        older_than: only runs that ended at least so long ago; `None` for any.
        keep_last: how many of the newest succeeded runs of each job stay whatever their age.
        failed_only: only what failed or was cancelled.
        with_silent: also runs that never ended, whose driver has been silent; their silence is then
            their age. Without it they stay, because a driver cut off from storage looks the same.
    """

    older_than: timedelta | None = None
    keep_last: int = 0
    failed_only: bool = False
    with_silent: bool = False


def parse_age(text: str) -> timedelta:
    """Return an age such as ``30d``, ``12h`` or ``1w``.

    Raises:
        ConfigError: it is none.

    Example:
        >>> parse_age("30d").days
        30
    """
    found = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if found is None:
        msg = f"--older-than {text}: expected a number and a unit (s, m, h, d, w), such as 30d"
        raise ConfigError(msg)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def to_remove(entries: Sequence[Entry], rule: CleanRule, *, now: datetime) -> list[Entry]:
    """Return the runs that a rule removes, the oldest first; never one that may be alive.

    Args:
        entries: all runs, in any order.
        rule: what to remove.
        now: the time.
    """
    newest_first = sorted(entries, key=lambda entry: entry.status.started, reverse=True)
    kept: dict[str, int] = {}
    doomed = []
    for entry in newest_first:
        if entry.status.status is JobState.SUCCEEDED:
            kept[entry.status.job] = kept.get(entry.status.job, 0) + 1
            if rule.failed_only or kept[entry.status.job] <= rule.keep_last:
                continue
        if _is_removable(entry, rule, now):
            doomed.append(entry)
    return doomed[::-1]


def _is_removable(entry: Entry, rule: CleanRule, now: datetime) -> bool:
    if entry.has_ended:
        age = now - parse_time(entry.status.ended or entry.status.started)
    elif rule.with_silent and entry.is_silent(now):
        age = entry.silence(now) or timedelta()
    else:
        return False
    return rule.older_than is None or age >= rule.older_than

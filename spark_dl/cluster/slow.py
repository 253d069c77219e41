"""A rank that steps along, but much slower than the others, which wait for it in every step."""

from __future__ import annotations

import logging
import statistics
from typing import TYPE_CHECKING, Final

from spark_dl.cluster.stall import StackInquiry
from spark_dl.cluster.status import RankPhase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spark_dl.cluster.status import WorkerStatus

__all__ = ["SlowWatch", "slowest"]

logger = logging.getLogger(__name__)

#: Much slower: more than so many times the others' median, and by so many seconds a step.
_TIMES: Final = 2.0
_AT_LEAST_S: Final = 0.01


def slowest(statuses: Sequence[WorkerStatus]) -> tuple[WorkerStatus, float] | None:
    """Return the rank that is much slower than the others, with their median; pure.

    Args:
        statuses: of all ranks.

    Returns:
        the rank and the seconds a step of the others; `None` where no rank stands out, or too
        little is known.
    """
    known = [(status.own_s, status) for status in statuses if status.own_s is not None]
    if len(known) < len(statuses) or len(known) < 2:  # noqa: PLR2004 - one has no others
        return None
    own_s, found = max(known, key=lambda pair: pair[0])
    median = statistics.median(seconds for seconds, status in known if status is not found)
    if own_s <= _TIMES * median or own_s - median < _AT_LEAST_S:
        return None
    return found, median


class SlowWatch:
    """Names a rank that stays much slower than the others, with its stack; once while it lasts.

    Args:
        after_s: how long it may be so; `None` for ever.
        ask: has all children write their stacks.
    """

    def __init__(self, *, after_s: float | None, ask: Callable[[], None]) -> None:
        """Begin to watch."""
        self._after_s = after_s
        self._stacks = StackInquiry(ask)
        self._rank: int | None = None
        self._since = 0.0

    def look(self, statuses: Sequence[WorkerStatus], now: float) -> None:
        """Look at the ranks; called often."""
        if self._after_s is None:
            return
        running = all(status.phase is RankPhase.RUNNING for status in statuses)
        found = slowest(statuses) if running else None
        rank = None if found is None else found[0].rank
        if found is None or rank != self._rank:
            self._rank, self._since = rank, now
            self._stacks.forget()
        elif now - self._since >= self._after_s and self._stacks.is_answered(now):
            self._tell(*found)

    def _tell(self, status: WorkerStatus, median: float) -> None:
        stack = "\n".join(status.stack)
        logger.warning(
            "rank %d on %s is slow: its own part of a step takes %.3g s, the other ranks' %.3g s "
            "(median), for %g s now; all ranks wait for it in every step. Is its host busy, or is "
            "its storage slow? (cluster.slow_after_s)%s",
            status.rank,
            status.host,
            status.own_s,
            median,
            self._after_s,
            f"\n{stack}" if stack else "",
        )

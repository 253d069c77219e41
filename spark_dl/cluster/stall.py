"""Ranks that have stopped to make progress: who they are, and what they do instead."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from spark_dl.cluster.status import RankPhase
from spark_dl.errors import RankFailure, TrainingFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spark_dl.cluster.status import WorkerStatus

__all__ = ["StackInquiry", "StallWatch", "stalled"]

logger = logging.getLogger(__name__)

#: How long processes get to write their stacks.
_STACK_S: Final = 3.0
#: States in /proc that say why a process does nothing.
_STATES: Final = {"T": "stopped by a signal", "t": "stopped by a debugger", "Z": "dead"}


def stalled(
    statuses: Sequence[WorkerStatus], *, now: float, after_s: float
) -> tuple[WorkerStatus, ...]:
    """Return the ranks that hold the others up; pure.

    Ranks step together: one that stands still soon stops them all. Those with the fewest steps are
    held responsible, which is all of them where they wait for each other in the same step.

    Args:
        statuses: of all ranks.
        now: monotonic time.
        after_s: how long a rank may be without progress.
    """
    running = [status for status in statuses if status.phase is RankPhase.RUNNING]
    if not running or any(now - status.progressed <= after_s for status in running):
        return ()
    fewest = min(status.step or 0 for status in running)
    return tuple(status for status in running if (status.step or 0) == fewest)


class StackInquiry:
    """Asks for the children's stacks, and says once when they have had the time to come.

    Args:
        ask: has all children write their stacks.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        """Ask nothing yet."""
        self._ask = ask
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was asked about is over."""
        self._asked: float | None = None
        self._is_told = False

    def is_answered(self, now: float) -> bool:
        """Return whether it is time to tell, which is true once; the first call asks."""
        if self._asked is None:
            self._asked = now
            self._ask()
        elif now - self._asked >= _STACK_S and not self._is_told:
            self._is_told = True
            return True
        return False


class StallWatch:
    """Names ranks that stand still, with their stacks.

    Args:
        after_s: how long a rank may be without progress; `None` for ever.
        is_fatal: whether a stall ends the try.
        ask: has all children write their stacks.
    """

    def __init__(self, *, after_s: float | None, is_fatal: bool, ask: Callable[[], None]) -> None:
        """Begin to watch."""
        self._after_s = after_s
        self._is_fatal = is_fatal
        self._stacks = StackInquiry(ask)

    def look(self, statuses: Sequence[WorkerStatus], now: float) -> None:
        """Look at the ranks; called often.

        Raises:
            TrainingFailedError: they stand still, and that is to end the try.
        """
        if self._after_s is None:
            return
        found = stalled(statuses, now=now, after_s=self._after_s)
        if not found:
            self._stacks.forget()
        elif self._stacks.is_answered(now):
            self._tell(statuses, found)

    def _tell(self, statuses: Sequence[WorkerStatus], found: Sequence[WorkerStatus]) -> None:
        # a rank whose process cannot run is the cause, whoever else waits
        halted = [status for status in statuses if status.process_state in _STATES]
        error = TrainingFailedError.from_failures(
            [_failure(status, self._after_s or 0.0) for status in halted or found]
        )
        if self._is_fatal:
            raise error
        logger.warning(
            "%s\nthe run waits on; cluster.restart_on_stall: true would start it again", error
        )


def _failure(status: WorkerStatus, after_s: float) -> RankFailure:
    doing = f" while {status.doing}" if status.doing else ""
    where = f"after step {status.step}" if status.step is not None else "before its first step"
    state = _STATES.get(status.process_state)
    return RankFailure(
        rank=status.rank,
        host=status.host,
        error="Stalled",
        message=(
            f"no progress for {after_s:g} s {where}{doing}"
            f"{f'; its process is {state}' if state else ''} (cluster.stall_after_s)"
        ),
        traceback="\n".join(status.stack),
        log_url=status.log_url,
        retryable=True,
    )

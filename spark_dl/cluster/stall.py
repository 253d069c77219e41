"""Ranks that have stopped to make progress: who they are, and what they do instead."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spark_dl.cluster.restart import STALLED
from spark_dl.cluster.status import RankPhase
from spark_dl.errors import RankFailure, TrainingFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
    """Names ranks that stand still, with their stacks, and ends the try if they do so for too long.

    Args:
        after_s: how long ranks may be without progress before they are named; `None` for ever.
        timeout_s: how long before the try ends; `None` for ever.
        is_fatal: whether the try ends when they are named.
        ask: has all children write their stacks.
    """

    def __init__(
        self,
        *,
        after_s: float | None,
        timeout_s: float | None,
        is_fatal: bool,
        ask: Callable[[], None],
    ) -> None:
        """Begin to watch."""
        self._name = _Limit(after_s, "cluster.stall_after_s", StackInquiry(ask))
        self._end = _Limit(timeout_s, "cluster.stall_timeout_s", StackInquiry(ask))
        self._is_fatal = is_fatal

    def look(self, statuses: Sequence[WorkerStatus], now: float) -> None:
        """Look at the ranks; called often.

        Raises:
            TrainingFailedError: they stand still, and that is to end the try.
        """
        if error := self._end.broken(statuses, now):
            raise error
        error = self._name.broken(statuses, now)
        if error and self._is_fatal:
            raise error
        if error:
            logger.warning(
                "%s\nthe run waits on; cluster.restart_on_stall: true would start it again", error
            )


@dataclass(frozen=True)
class _Limit:
    """How long ranks may be without progress.

    Attributes:
        after_s: so long; `None` for ever.
        setting: what sets it.
        stacks: asks for the stacks when it is broken.
    """

    after_s: float | None
    setting: str
    stacks: StackInquiry

    def broken(self, statuses: Sequence[WorkerStatus], now: float) -> TrainingFailedError | None:
        """Return what is to be said of it, once each time that it is broken; `None` else."""
        if self.after_s is None:
            return None
        found = stalled(statuses, now=now, after_s=self.after_s)
        if not found:
            self.stacks.forget()
        elif self.stacks.is_answered(now):
            # a rank whose process cannot run is the cause, whoever else waits
            halted = [status for status in statuses if status.process_state in _STATES]
            return self._error(halted or found)
        return None

    def _error(self, ranks: Iterable[WorkerStatus]) -> TrainingFailedError:
        return TrainingFailedError.from_failures(
            [_failure(status, self.after_s or 0.0, self.setting) for status in ranks]
        )


def _failure(status: WorkerStatus, after_s: float, setting: str) -> RankFailure:
    doing = f" while {status.doing}" if status.doing else ""
    where = f"after step {status.step}" if status.step is not None else "before its first step"
    state = _STATES.get(status.process_state)
    return RankFailure(
        rank=status.rank,
        host=status.host,
        error=STALLED,
        message=(
            f"no progress for {after_s:g} s {where}{doing}"
            f"{f'; its process is {state}' if state else ''} ({setting})"
        ),
        traceback="\n".join(status.stack),
        log_url=status.log_url,
        retryable=True,
    )

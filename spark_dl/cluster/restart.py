"""Whether a run that lost its workers is started again: a pure decision from what has happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spark_dl.errors import (
    CancelledError,
    ResourceError,
    SparkDLError,
    TimeoutExpiredError,
    TrainingFailedError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["STALLED", "Mishap", "Raise", "RestartPolicy", "Retry", "judge"]

#: What became of a rank that stood still for too long.
STALLED: Final = "Stalled"

_HOUR_S: Final = 3600.0
#: Tries in a row that may end without a step: a third time is no bad luck.
_FRUITLESS: Final = 3
#: Ends that come from outside of the process, so that their cause need not be at that step.
_FROM_OUTSIDE: Final = frozenset({"WorkerLost", "killed by SIGTERM"})


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """How often a run is started again.

    Attributes:
        max_restarts: in the whole run; 0 for never.
        per_hour: within any hour.
        backoff_s: seconds before the first; they double while no step is made between two.
        backoff_max_s: seconds at most.
        on_stall: whether also ranks that stood still are.
    """

    max_restarts: int = 0
    per_hour: int = 10
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    on_stall: bool = False


@dataclass(frozen=True, kw_only=True)
class Mishap:
    """One end of a try.

    Attributes:
        error: what ended it.
        step: the last step that was heard of; `None` when there was none in that try.
        time: when, in seconds of a monotonic clock.
    """

    error: Exception
    step: int | None
    time: float

    @property
    def causes(self) -> frozenset[str]:
        """What happened, without where it happened."""
        if isinstance(self.error, TrainingFailedError):
            return frozenset(failure.cause() for failure in self.error.failures)
        return frozenset({f"{type(self.error).__name__}: {self.error}"})

    @property
    def is_from_outside(self) -> bool:
        """Whether something ended the workers that need not have to do with what they did."""
        if isinstance(self.error, TrainingFailedError):
            # a second SIGKILL at one step is a limit that the step meets
            outside = _FROM_OUTSIDE | ({"killed by SIGKILL"} if self.step is None else frozenset())
            return all(failure.error in outside for failure in self.error.failures)
        return not isinstance(self.error, TimeoutExpiredError)

    @property
    def is_stall(self) -> bool:
        """Whether ranks stood still."""
        return isinstance(self.error, TrainingFailedError) and any(
            failure.error == STALLED for failure in self.error.failures
        )

    @property
    def is_of_memory(self) -> bool:
        """Whether a limit of memory ended a worker."""
        return isinstance(self.error, TrainingFailedError) and any(
            failure.is_of_memory for failure in self.error.failures
        )


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Start again.

    Attributes:
        after_s: seconds to wait before.
    """

    after_s: float


@dataclass(frozen=True, kw_only=True)
class Raise:
    """Give up.

    Attributes:
        why: why there is no restart, to be said beside the error; empty where the error says it.
        is_final: whether it would happen again also when somebody else starts the run again.
    """

    why: str = ""
    is_final: bool = False


def judge(mishaps: Sequence[Mishap], policy: RestartPolicy) -> Retry | Raise:
    """Decide whether a restart may help.

    Args:
        mishaps: all ends of tries so far, the newest last; at least one.
        policy: the limits.
    """
    last = mishaps[-1]
    if not _may_pass(last.error) or policy.max_restarts == 0:
        return Raise()
    if isinstance(last.error, (TimeoutExpiredError, ResourceError)) and len(mishaps) == 1:
        return Raise()  # a cluster that has never been there: waiting as long again helps nobody
    if why := _hopeless(mishaps):
        return Raise(why=why, is_final=True)
    if why := _not_allowed(mishaps, policy):
        return Raise(why=why)
    after_s = policy.backoff_s * 2.0 ** _fruitless(mishaps)
    return Retry(after_s=min(after_s, policy.backoff_max_s))


def _not_allowed(mishaps: Sequence[Mishap], policy: RestartPolicy) -> str:
    """Return which setting forbids a restart, empty if none does."""
    last, restarts = mishaps[-1], len(mishaps) - 1
    if last.is_stall and not policy.on_stall:
        return "cluster.restart_on_stall is off"
    if restarts >= policy.max_restarts:
        return f"it was restarted {restarts} times (cluster.max_restarts)"
    # the one to come counts too
    recent = sum(last.time - mishap.time < _HOUR_S for mishap in mishaps)
    if recent > policy.per_hour:
        return f"it was restarted {recent - 1} times within an hour (cluster.restarts_per_hour)"
    return ""


def _may_pass(error: Exception) -> bool:
    return (
        isinstance(error, SparkDLError)
        and error.retryable
        and not isinstance(error, CancelledError)
    )


def _hopeless(mishaps: Sequence[Mishap]) -> str:
    """Return why the same would happen again, empty if it need not."""
    last = mishaps[-1]
    if last.is_of_memory and any(mishap.is_of_memory for mishap in mishaps[:-1]):
        return "a worker ran out of memory a second time"
    if _fruitless(mishaps) >= _FRUITLESS:
        return f"{_FRUITLESS} tries in a row ended before their first step"
    if len(mishaps) > 1 and not last.is_from_outside:
        before = mishaps[-2]
        if before.causes == last.causes and before.step == last.step:
            where = "before the first step" if last.step is None else f"after step {last.step}"
            return f"the same happened twice {where}"
    return ""


def _fruitless(mishaps: Sequence[Mishap]) -> int:
    """Return how many tries ended without a step, counted from the last."""
    count = 0
    for mishap in reversed(mishaps):
        if mishap.step is not None:
            break
        count += 1
    return count

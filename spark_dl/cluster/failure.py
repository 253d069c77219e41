"""What to do about the state of the ranks: pure decisions, statuses in, decision out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from spark_dl.cluster.containers import explain_end
from spark_dl.cluster.status import RankPhase, WorkerStatus
from spark_dl.errors import RankFailure, TrainingFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CAUSES_MERGE_S", "CAUSE_PATIENCE_S", "Decision", "Verdict", "decide", "last_step"]

#: How long to wait for more causes once there is one: an error that all ranks meet is told once,
#: with all of them.
CAUSES_MERGE_S: Final = 0.3
#: How long to wait for a cause when all that is known are consequences: a rank that says its peer
#: is gone, or a lost connection, may be faster than the rank that failed.
CAUSE_PATIENCE_S: Final = 2.0
#: The same where YARN knows why a container ended: Spark asks it every 3 s.
CONTAINER_PATIENCE_S: Final = 15.0


class Verdict(StrEnum):
    """What to do next.

    - WAIT: nothing is wrong, or the cause of what is wrong is not known yet.
    - HALT: the same, and this try is over: a rank is lost, the others need not go on.
    - RELEASE: every rank is done.
    - RAISE: end the run with an error.
    """

    WAIT = "wait"
    HALT = "halt"
    RELEASE = "release"
    RAISE = "raise"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A verdict and, for RAISE, the error."""

    verdict: Verdict
    error: TrainingFailedError | None = None


def decide(statuses: Sequence[WorkerStatus], *, trouble_s: float) -> Decision:
    """Decide what to do.

    Args:
        statuses: of all ranks.
        trouble_s: seconds since the first sign of trouble; 0 when there is none.
    """
    phases = {status.phase for status in statuses}
    if phases == {RankPhase.DONE}:
        return Decision(verdict=Verdict.RELEASE)
    causes = [s.failure for s in statuses if s.failure is not None and not s.is_consequence]
    if causes and trouble_s < CAUSES_MERGE_S and len(causes) < len(statuses):
        return Decision(verdict=Verdict.WAIT)
    if causes:
        return Decision(verdict=Verdict.RAISE, error=TrainingFailedError.from_failures(causes))
    if not phases & {RankPhase.FAILED, RankPhase.LOST}:
        return Decision(verdict=Verdict.WAIT)
    lost = [status for status in statuses if status.phase is RankPhase.LOST]
    untold = [status for status in lost if status.container and not status.end]
    if trouble_s < (CONTAINER_PATIENCE_S if untold else CAUSE_PATIENCE_S):
        return Decision(verdict=Verdict.HALT if lost else Verdict.WAIT)
    consequences = [s.failure for s in statuses if s.failure is not None]
    return Decision(
        verdict=Verdict.RAISE,
        error=TrainingFailedError.from_failures([_lost(s) for s in lost] or consequences),
    )


def last_step(statuses: Sequence[WorkerStatus]) -> int | None:
    """Return the last step of a try, `None` before the first.

    A rank that failed has told the very step; what is known of the others is some moments old.
    """
    stepped = [s for s in statuses if s.step is not None]
    failed = [s for s in stepped if s.failure is not None and not s.is_consequence]
    return max((s.step for s in failed or stepped if s.step is not None), default=None)


def _lost(status: WorkerStatus) -> RankFailure:
    if status.end:
        why, is_of_memory = explain_end(status.end)
        return RankFailure(
            rank=status.rank,
            host=status.host,
            error="WorkerLost",
            message=why,
            log_url=status.log_url,
            retryable=True,
            is_of_memory=is_of_memory,
        )
    return RankFailure(
        rank=status.rank,
        host=status.host or "an unknown host",
        error="WorkerLost",
        message=(
            "the executor or its connection is gone; look for the executor's end in the Spark UI "
            "(a container killed for its memory needs more spark.executor.memoryOverhead)"
        ),
        log_url=status.log_url,
        retryable=True,
    )

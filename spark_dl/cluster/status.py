"""States of a run and of its ranks, and which may follow which."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from spark_dl.errors import InternalError

if TYPE_CHECKING:
    from spark_dl.errors import RankFailure

__all__ = ["TRANSITIONS", "RankPhase", "RunState", "WorkerStatus"]


class RunState(StrEnum):
    """States of one run on the cluster.

    - STARTING: the stage is submitted; agents connect, children start.
    - RUNNING: the function runs on every rank.
    - RESTARTING: workers were lost; their children, or all of the stage, start again.
    - STOPPING: an end is decided; the ranks are being stopped or released.
    - SUCCEEDED, FAILED, CANCELLED: over.
    """

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return not TRANSITIONS[self]

    def to(self, following: RunState) -> RunState:
        """Return `following` if it may follow.

        Raises:
            InternalError: it may not.
        """
        if following not in TRANSITIONS[self]:
            msg = f"a run cannot go from {self} to {following}"
            raise InternalError(msg)
        return following


TRANSITIONS: Final[dict[RunState, frozenset[RunState]]] = {
    RunState.STARTING: frozenset({RunState.RUNNING, RunState.RESTARTING, RunState.STOPPING}),
    RunState.RUNNING: frozenset({RunState.RESTARTING, RunState.STOPPING}),
    RunState.RESTARTING: frozenset({RunState.STARTING, RunState.STOPPING}),
    RunState.STOPPING: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


class RankPhase(StrEnum):
    """Where one rank is.

    - WAITING: its agent has not connected yet.
    - CONNECTED: its agent is there, the child is starting.
    - RUNNING: the function runs.
    - DONE: the function has returned; the child waits for the others.
    - FAILED: the child failed.
    - LOST: the agent's connection is gone, or it is silent.
    """

    WAITING = "waiting"
    CONNECTED = "connected"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"


@dataclass
class WorkerStatus:
    """What the driver knows of one rank.

    Attributes:
        rank: the rank.
        phase: where it is.
        host: host name of its executor, empty before it connects.
        container: YARN's container of its executor; empty elsewhere.
        log_url: where that container's log can be read; empty where unknown.
        end: why its executor ended, as Spark tells; empty while unknown.
        heard: monotonic time of its last message, in seconds.
        has_agent: whether its agent is connected.
        step: steps of the run that its child has done in this try; `None` before the first.
        own_s: seconds that its child's own part of a step takes, lately, without its wait for the
            others; `None` while unknown.
        doing: what its child does, in a word; empty while unknown.
        progressed: monotonic time of the last thing that its child reported.
        stack: the last lines of its child, with its stack where that was asked for.
        process_state: state letter of its child in /proc, where it was asked for.
        result: what its function returned.
        failure: why it failed.
        is_consequence: the failure only reports that a peer is gone.
    """

    rank: int
    phase: RankPhase = RankPhase.WAITING
    host: str = ""
    container: str = ""
    log_url: str = ""
    end: str = ""
    heard: float = 0.0
    has_agent: bool = False
    step: int | None = None
    own_s: float | None = None
    doing: str = ""
    progressed: float = 0.0
    stack: tuple[str, ...] = ()
    process_state: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    failure: RankFailure | None = None
    is_consequence: bool = False

"""What the driver knows of the ranks, from what their agents say; no thread and no wait in it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cluster.status import RankPhase, WorkerStatus
from spark_dl.errors import RankFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spark_dl.cluster.codec import Message
    from spark_dl.cluster.control import Envelope
    from spark_dl.cluster.plan import LaunchRequest

__all__ = ["RankTable"]

logger = logging.getLogger(__name__)

_LIVE: Final = frozenset({RankPhase.CONNECTED, RankPhase.RUNNING, RankPhase.DONE})
#: What a child that was replaced may have said last.
_OF_A_TRY: Final = frozenset({"event", "done", "failed", "ready", "stack"})


class RankTable:
    """The statuses of the ranks of one stage, through all tries that its agents make.

    Args:
        request: whose events and logs are passed on.
    """

    def __init__(self, request: LaunchRequest) -> None:
        """Nobody has connected yet."""
        self._request = request
        self.attempt = request.attempt
        now = time.monotonic()
        self.statuses = [WorkerStatus(rank=rank, heard=now) for rank in range(request.num_workers)]
        self._polled = now
        self._unready: set[int] = set()

    def __iter__(self) -> Iterator[WorkerStatus]:
        """Iterate over the statuses, in order of rank."""
        return iter(self.statuses)

    def begin_again(self, attempt: int) -> None:
        """Count all agents as connected, with children that have no job yet."""
        self.attempt = attempt
        self._unready = {status.rank for status in self.statuses}
        for status in list(self.statuses):
            kept = {name: getattr(status, name) for name in ("host", "container", "log_url")}
            self.statuses[status.rank] = WorkerStatus(
                rank=status.rank,
                phase=RankPhase.CONNECTED,
                heard=status.heard,
                has_agent=True,
                **kept,
            )

    @property
    def can_begin_again(self) -> bool:
        """Whether every agent is there, so that new children are all that is needed."""
        return all(status.has_agent for status in self.statuses)

    def take(self, envelope: Envelope) -> bool:
        """Take a message in; return whether all children are ready for their job now."""
        status, message = self.statuses[envelope.rank], envelope.message
        status.heard = time.monotonic()
        kind = message.get("kind")
        if kind in _OF_A_TRY and message.get("attempt", self.attempt) != self.attempt:
            return False
        match kind:
            case "event":
                self._take_event(status, message["event"])
            case "log":
                for line in message["lines"]:
                    self._request.on_log(status.rank, status.host, str(line))
            case "ready" if status.rank in self._unready:
                self._unready.remove(status.rank)
                return not self._unready
            case other if other in _CHANGES:
                _CHANGES[other](status, message)
        return False

    def _take_event(self, status: WorkerStatus, event: dict[str, Any]) -> None:
        status.progressed = status.heard
        if event.get("kind") == "started":
            status.phase = RankPhase.RUNNING
        status.doing = str(event.get("doing", status.doing))
        if "run_step" in event:
            status.step = int(event["run_step"])
            status.own_s = event.get("own_s")
        self._request.on_event(status.rank, event)

    def mark_silent(self) -> None:
        """Count ranks as lost that have been silent for too long."""
        silence = self._request.timeouts.lost_s
        now = time.monotonic()
        if now - self._polled > silence / 2:
            # it is this driver that was away (a paused machine, a debugger): start counting again
            for status in self.statuses:
                status.heard = now
        self._polled = now
        for status in self.statuses:
            if status.phase in _LIVE and now - status.heard > silence:
                logger.warning(
                    "rank %d on %s has been silent for %g s", status.rank, status.host, silence
                )
                status.phase = RankPhase.LOST
                status.has_agent = False


def _greet(status: WorkerStatus, message: Message) -> None:
    status.phase, status.host = RankPhase.CONNECTED, str(message["host"])
    status.has_agent = True
    status.container = str(message.get("container", ""))
    status.log_url = str(message.get("log_url", ""))


def _fail(status: WorkerStatus, message: Message) -> None:
    status.phase = RankPhase.FAILED
    failure = message["failure"]
    told = {"log_tail": tuple(failure["log_tail"]), "log_url": status.log_url}
    status.failure = RankFailure(**{**failure, **told})
    status.is_consequence = bool(message["is_consequence"])
    if message["step"] is not None:
        status.step = int(message["step"])


def _finish(status: WorkerStatus, message: Message) -> None:
    status.phase, status.result = RankPhase.DONE, message["result"] or {}


def _lose(status: WorkerStatus, _message: Message) -> None:
    status.has_agent = False
    if status.phase in (RankPhase.CONNECTED, RankPhase.RUNNING):
        status.phase = RankPhase.LOST


def _explain(status: WorkerStatus, message: Message) -> None:
    status.process_state = str(message["state"])
    status.stack = tuple(map(str, message["lines"]))
    if message["step"] is not None:  # a process that was stopped may not have reported its last
        status.step = int(message["step"])


_CHANGES: Final[dict[object, Callable[[WorkerStatus, Message], None]]] = {
    "hello": _greet,
    "done": _finish,
    "failed": _fail,
    "gone": _lose,
    "stack": _explain,
}

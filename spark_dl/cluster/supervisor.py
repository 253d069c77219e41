"""The driver's loop over a run on the cluster; `failure` and `restart` decide, it does."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cluster.failure import Verdict, decide, last_step
from spark_dl.cluster.restart import Mishap, Raise, judge
from spark_dl.cluster.slow import SlowWatch
from spark_dl.cluster.stall import StallWatch
from spark_dl.cluster.status import RankPhase, RunState
from spark_dl.errors import (
    CancelledError,
    ResourceError,
    TimeoutExpiredError,
    TrainingFailedError,
    is_cancel,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spark_dl.cluster.backend import Backend, WorkerGroup
    from spark_dl.cluster.plan import LaunchRequest
    from spark_dl.cluster.status import WorkerStatus

__all__ = ["run_on_cluster"]

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.2


class _Supervisor:
    """Runs one request, through as many tries as it takes."""

    def __init__(self, backend: Backend, request: LaunchRequest) -> None:
        self._backend = backend
        self._request = request
        self._attempt = request.attempt
        self._mishaps: list[Mishap] = []
        self._group: WorkerGroup | None = None
        self._started = 0.0
        self._trouble: float | None = None
        self._step: int | None = None
        self.state = RunState.STARTING

    def _enter(self, state: RunState) -> None:
        self.state = self.state.to(state)
        logger.debug("%s: %s", self._request.name, state)

    def run(self) -> list[dict[str, Any]]:
        """Return what the ranks returned, in order, once all are done.

        Raises:
            SparkDLError: why the run ended otherwise.
        """
        try:
            results = self._try_until_done()
        except BaseException as error:
            self._enter(RunState.STOPPING)
            if is_cancel(error):
                self._request.on_cancel(error)
            self._drop_group(type(error).__name__)
            self._enter(RunState.CANCELLED if is_cancel(error) else RunState.FAILED)
            raise
        self._enter(RunState.STOPPING)
        group, self._group = self._group, None
        if group is not None:
            group.release()
            group.close()
        self._enter(RunState.SUCCEEDED)
        return results

    def _try_until_done(self) -> list[dict[str, Any]]:
        while True:
            self._started, self._trouble, self._step = time.monotonic(), None, None
            try:
                if self._group is None:
                    request = replace(self._request, attempt=self._attempt)
                    self._group = self._backend.launch(request)
                return self._watch(self._group)
            except Exception as error:
                self._mishaps.append(Mishap(error=error, step=self._step, time=time.monotonic()))
                verdict = judge(self._mishaps, self._request.restarts)
                if isinstance(verdict, Raise):
                    if verdict.why:
                        raise _given_up(error, verdict) from error.__cause__
                    raise
                self._restart(error, verdict.after_s)

    def _restart(self, error: Exception, after_s: float) -> None:
        """Bring the ranks to where they can be watched again: new children, or a new stage."""
        self._enter(RunState.RESTARTING)
        self._attempt += 1
        logger.warning(
            "%s: attempt %d follows in %g s: %s", self._request.name, self._attempt, after_s, error
        )
        self._request.on_restart(self._attempt, error)
        if self._group is not None and self._group.restart_children(self._attempt):
            self._wait(after_s)  # they import TensorFlow meanwhile
        else:
            self._drop_group("restart")
            self._wait(after_s)
            self._make_room(error)
        self._enter(RunState.STARTING)

    def _make_room(self, error: Exception) -> None:
        try:
            self._request.make_room(self._check_stop)
        except ResourceError as none:
            raise _given_up(error, Raise(why=str(none))) from error.__cause__

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        pause = threading.Event()
        while (left := end - time.monotonic()) > 0:
            self._check_stop()
            pause.wait(min(left, _POLL_S))

    def _drop_group(self, reason: str) -> None:
        """Stop the ranks and wait for the end of their tasks."""
        group, self._group = self._group, None
        if group is None:
            return
        try:
            group.cancel(reason)
            group.close()
        except Exception:  # the first error says more than that its remains did not go in time
            logger.exception("%s: the workers could not be stopped cleanly", self._request.name)

    def _check_stop(self) -> None:
        if (reason := self._request.stop_reason()) is not None:
            msg = f"{self._request.name} was stopped: {reason}"
            raise CancelledError(msg)

    def _watch(self, group: WorkerGroup) -> list[dict[str, Any]]:
        stalls = StallWatch(
            after_s=self._request.stall_after_s,
            timeout_s=self._request.stall_timeout_s,
            is_fatal=self._request.restarts.on_stall,
            ask=group.ask_for_stacks,
        )
        slow = SlowWatch(after_s=self._request.slow_after_s, ask=group.ask_for_stacks)
        is_halted = False
        while True:
            statuses = group.poll(_POLL_S)
            self._check_stop()
            self._step = last_step(statuses)
            decision = decide(statuses, trouble_s=self._trouble_s(statuses))
            if decision.verdict is Verdict.RELEASE:
                if self.state is RunState.STARTING:
                    self._enter(RunState.RUNNING)
                return [status.result for status in statuses]
            if decision.error is not None:
                raise decision.error
            if decision.verdict is Verdict.HALT:
                if not is_halted:
                    self._halt(group, statuses)
                is_halted = True
                continue
            self._check_start(statuses)
            stalls.look(statuses, time.monotonic())
            slow.look(statuses, time.monotonic())

    def _halt(self, group: WorkerGroup, statuses: Sequence[WorkerStatus]) -> None:
        """End the children of a try that is over; why it is may take a while to be known."""
        lost = ", ".join(f"{s.rank} on {s.host}" for s in statuses if s.phase is RankPhase.LOST)
        logger.warning("%s: rank %s is lost: the others stop", self._request.name, lost)
        group.halt()

    def _trouble_s(self, statuses: Sequence[WorkerStatus]) -> float:
        if self._trouble is None and any(
            s.phase in (RankPhase.FAILED, RankPhase.LOST) for s in statuses
        ):
            self._trouble = time.monotonic()
        return 0.0 if self._trouble is None else time.monotonic() - self._trouble

    def _check_start(self, statuses: Sequence[WorkerStatus]) -> None:
        if self.state is not RunState.STARTING:
            return
        late = [s for s in statuses if s.phase in (RankPhase.WAITING, RankPhase.CONNECTED)]
        if not late:
            self._enter(RunState.RUNNING)
        elif time.monotonic() - self._started > self._request.timeouts.start_s:
            ready = len(statuses) - len(late)
            ranks = ", ".join(
                f"{s.rank} ({s.phase}{' on ' + s.host if s.host else ''})" for s in late
            )
            room = self._request.describe_room()
            what = (
                f"the workers to start: {ready} of {len(statuses)} are ready; not ready: rank "
                f"{ranks}{'; Spark has ' + room if room else ''}"
            )
            raise TimeoutExpiredError.waiting_for(
                what, self._request.timeouts.start_s, "cluster.start_timeout_s"
            )


def _given_up(error: Exception, verdict: Raise) -> Exception:
    if isinstance(error, TrainingFailedError):
        return error.given_up(verdict.why, is_final=verdict.is_final)
    error.add_note(f"not restarted: {verdict.why}")
    return error


def run_on_cluster(backend: Backend, request: LaunchRequest) -> list[dict[str, Any]]:
    """Run a function on every rank and return what each returned, in order of rank.

    Workers that are lost are started again, as `request.restarts` allows: new children where all
    agents are alive, else a new stage. The SparkContext lives on whatever happens, and no process
    of ours is left on an executor.

    Args:
        backend: how the cluster is formed.
        request: what to run, on how many ranks, with which deadlines.

    Raises:
        TrainingFailedError: the function failed on a rank.
        TimeoutExpiredError: the cluster was not formed in time.
        ClusterError: Spark ended the stage.
        CancelledError: somebody cancelled the Spark job, or the caller wants the run to stop.
    """
    return _Supervisor(backend, request).run()

"""The driver's loop over one launched cluster: it decides nothing itself, see `failure`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cluster.failure import Verdict, decide
from spark_dl.cluster.status import RankPhase, RunState
from spark_dl.errors import CancelledError, TimeoutExpiredError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spark_dl.cluster.backend import Backend, WorkerGroup
    from spark_dl.cluster.plan import LaunchRequest
    from spark_dl.cluster.status import WorkerStatus

__all__ = ["run_on_cluster"]

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.2


class _Supervisor:
    """Watches one launch."""

    def __init__(self, group: WorkerGroup, request: LaunchRequest) -> None:
        self._group = group
        self._request = request
        self._started = time.monotonic()
        self._trouble: float | None = None
        self.state = RunState.STARTING

    def _enter(self, state: RunState) -> None:
        self.state = self.state.to(state)
        logger.debug("%s: %s", self._request.name, state)

    def watch(self) -> list[dict[str, Any]]:
        """Return what the ranks returned, in order, once all are done.

        Raises:
            SparkDLError: why the run ended otherwise.
        """
        try:
            results = self._watch()
        except BaseException as error:
            self._enter(RunState.STOPPING)
            self._group.cancel(f"{type(error).__name__}")
            self._enter(RunState.FAILED if isinstance(error, Exception) else RunState.CANCELLED)
            raise
        self._enter(RunState.STOPPING)
        self._group.release()
        self._enter(RunState.SUCCEEDED)
        return results

    def _watch(self) -> list[dict[str, Any]]:
        while True:
            statuses = self._group.poll(_POLL_S)
            if (reason := self._request.stop_reason()) is not None:
                msg = f"{self._request.name} was stopped: {reason}"
                raise CancelledError(msg)
            decision = decide(statuses, trouble_s=self._trouble_s(statuses))
            if decision.verdict is Verdict.RELEASE:
                if self.state is RunState.STARTING:
                    self._enter(RunState.RUNNING)
                return [status.result for status in statuses]
            if decision.error is not None:
                raise decision.error
            self._check_start(statuses)

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
            what = (
                f"the workers to start: {ready} of {len(statuses)} are ready; not ready: rank "
                f"{ranks}"
            )
            raise TimeoutExpiredError.waiting_for(
                what, self._request.timeouts.start_s, "cluster.start_timeout_s"
            )


def run_on_cluster(backend: Backend, request: LaunchRequest) -> list[dict[str, Any]]:
    """Run a function on every rank and return what each returned, in order of rank.

    The SparkContext lives on whatever happens, and no process of ours is left on an executor.

    Args:
        backend: how the cluster is formed.
        request: what to run, on how many ranks, with which deadlines.

    Raises:
        TrainingFailedError: the function failed on a rank.
        TimeoutExpiredError: the cluster was not formed in time.
        ClusterError: Spark ended the stage.
        CancelledError: somebody cancelled the Spark job, or the caller wants the run to stop.
    """
    group = backend.launch(request)
    try:
        results = _Supervisor(group, request).watch()
    except BaseException:
        try:
            group.close()
        except Exception:  # the first error says more than that its remains did not go in time
            logger.exception("%s: the workers could not be stopped cleanly", request.name)
        raise
    group.close()
    return results

"""The ranks of one launch as the driver sees them: a barrier stage and a control channel."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import queue
import re
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any

from spark_dl import _jvm
from spark_dl.cluster.agent import TaskFacts
from spark_dl.cluster.codec import new_secret, seal
from spark_dl.cluster.control import ControlServer, Envelope
from spark_dl.cluster.hub import RemoteControl
from spark_dl.cluster.naming import cancel_job, name_job
from spark_dl.cluster.plan import LaunchPlan
from spark_dl.cluster.profile import worker_profile
from spark_dl.cluster.ranks import RankTable
from spark_dl.cluster.shipping import installed_folders, pickle_by_value
from spark_dl.cluster.status import RankPhase
from spark_dl.errors import (
    CancelledError,
    ClusterError,
    ConfigError,
    TimeoutExpiredError,
)
from spark_dl.storage.filesystem import join
from spark_dl.storage.tokens import TokenWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from pyspark import BarrierTaskContext
    from pyspark.sql import SparkSession

    from spark_dl.cluster.plan import LaunchRequest
    from spark_dl.cluster.status import WorkerStatus

    FormCluster = Callable[[LaunchPlan, TaskFacts, BarrierTaskContext], None]

__all__ = ["BarrierWorkerGroup", "driver_search_path"]

logger = logging.getLogger(__name__)

#: What Spark says of a job that somebody cancelled; the second before 4.0, and of an application
#: that was stopped: by spark.stop() elsewhere, or `yarn application -kill`.
_CANCELLED_BY_USER = re.compile(
    r"SPARK_JOB_CANCELLED|Job \d+ cancelled|was cancelled|OPERATION_CANCELED"
)
_NOT_A_RANK = -1
#: How long agents get to follow a stop request before their Spark job is cancelled.
_LISTEN_S = 2.0
_STOP_SETTING = "cluster.stop_timeout_s"


def driver_search_path() -> tuple[str, ...]:
    """Return the module folders of the driver's scripts and projects, not of its packages."""
    installed = installed_folders()
    own = [os.path.abspath(folder) for folder in sys.path if "site-packages" not in folder]
    return tuple(
        folder
        for folder in own
        if os.path.isdir(folder) and os.path.realpath(folder) not in installed
    )


def _open_control(
    spark: SparkSession, request: LaunchRequest, name: str, secret: bytes
) -> ControlServer | RemoteControl:
    """Return this end of the control channel, as the agents of the session can reach it."""
    if _jvm.is_connect(spark):
        if not request.shared_folder:
            msg = "on Spark Connect a launch needs a folder that client and executors share"
            raise ConfigError(msg)
        return RemoteControl(join(request.shared_folder, f".control-{name}"))
    conf = spark.sparkContext.getConf()
    host = conf.get("spark.driver.host") or "127.0.0.1"
    return ControlServer(
        bind=conf.get("spark.driver.bindAddress") or host,
        host=host,
        secret=secret,
        world_size=request.num_workers,
        ping_s=request.timeouts.heartbeat_s,
        ports=request.ports,
    )


def _thread_class(spark: SparkSession) -> type[threading.Thread]:
    """Return what carries the caller's job properties (pools, queues) into a thread."""
    if _jvm.is_connect(spark):
        return threading.Thread  # tags and properties are the session's, not a JVM thread's
    from pyspark import InheritableThread

    return InheritableThread


def _task_facts(context: BarrierTaskContext) -> TaskFacts:
    resources = context.resources()
    gpus = tuple(resources["gpu"].addresses) if "gpu" in resources else ()
    return TaskFacts(rank=context.partitionId(), cores=context.cpus(), gpus=gpus)


def _run_task(
    plan: LaunchPlan, form: FormCluster, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Body of a task: never raises, because Spark would resubmit the whole stage."""
    import pyarrow as pa
    from pyspark import BarrierTaskContext

    for _ in batches:
        pass  # the single row that makes the partition
    context = BarrierTaskContext.get()
    task = _task_facts(context)
    outcome: dict[str, Any] = {"rank": task.rank, "error": None}
    try:
        form(plan, task, context)
    except Exception as error:
        # Spark's log of the task keeps it too: the row is read only once all tasks have ended
        logger.exception("the agent of rank %d of %s failed", task.rank, plan.name)
        outcome["error"] = f"{type(error).__name__}: {error}"
    yield pa.RecordBatch.from_pydict({"outcome": [json.dumps(outcome)]})


class BarrierWorkerGroup:
    """A barrier stage whose tasks are agents.

    Args:
        spark: the session; over Spark Connect the control channel goes by the run directory.
        backend: name of the backend.
        form: how a task joins the cluster and runs its agent; a module-level function.
        request: what to run.
    """

    def __init__(
        self, spark: SparkSession, backend: str, form: FormCluster, request: LaunchRequest
    ) -> None:
        """Open the control channel and submit the stage."""
        self._spark = spark
        self._request = request
        self._tag = f"spark_dl-{request.name}-{uuid.uuid4().hex[:8]}"
        self._secret = secret = new_secret()
        self._tokens = TokenWatch(functools.partial(_jvm.delegation_tokens, spark))
        job = pickle_by_value((request.function, request.value))
        self._server = _open_control(spark, request, self._tag, secret)
        plan = LaunchPlan(
            job=job,
            world_size=request.num_workers,
            control=self._server.address,
            mailbox=self._server.mailbox if isinstance(self._server, RemoteControl) else "",
            secret=secret,
            backend=backend,
            search_path=driver_search_path(),
            preload=request.preload,
            environ=dict(request.environ),
            noise=request.noise,
            timeouts=request.timeouts,
            ports=request.ports,
            attempt=request.attempt,
            name=request.name,
        )
        self._ranks = RankTable(request)
        self._outcomes: list[dict[str, Any]] | None = None
        self._job_error: BaseException | None = None
        self._thread = self._submit(functools.partial(_run_task, plan, form))

    def _submit(self, task: Callable[..., Iterator[pa.RecordBatch]]) -> Any:  # noqa: ANN401 - pyspark's own thread class is untyped
        spark, size = self._spark, self._request.num_workers
        profile = worker_profile(spark, self._request.resources)

        def submit() -> None:
            try:
                name_job(spark, self._tag, self._title())
                ranks = spark.range(0, size, 1, size)
                # Spark before 4.0 knows no `profile`
                further = {"profile": profile} if profile is not None else {}
                stage = ranks.mapInArrow(task, "outcome string", barrier=True, **further)
                rows = stage.collect()
                self._outcomes = [json.loads(row.outcome) for row in rows]
            except BaseException as error:  # noqa: BLE001 - handed to the thread that polls
                self._job_error = error
            self._server.inbox.put(Envelope(rank=_NOT_A_RANK, message={"kind": "job-ended"}))

        thread = _thread_class(spark)(target=submit, name=self._tag, daemon=True)
        thread.start()
        return thread

    def _title(self) -> str:
        request = self._request
        what = request.title or request.name
        return f"spark_dl: {what}, {request.num_workers} workers, attempt {request.attempt}"

    def poll(self, timeout_s: float) -> list[WorkerStatus]:
        """Wait up to `timeout_s` for news and return the status of every rank.

        Raises:
            CancelledError: somebody cancelled the Spark job.
            ClusterError: the Spark job ended before the ranks did.
        """
        with contextlib.suppress(queue.Empty):
            self._take(self._server.inbox.get(timeout=timeout_s))
        self._drain()
        self._pass_on_tokens()
        self._ranks.mark_silent()
        self._ask_for_ends()
        if not self._thread.is_alive():
            if isinstance(self._server, RemoteControl):
                self._server.fetch()  # what the hub wrote last may have overtaken our look
                self._drain()
            self._check_job()
        return self._ranks.statuses

    def _pass_on_tokens(self) -> None:
        if (tokens := self._tokens.news()) is not None:
            self._server.broadcast({"kind": "tokens", "sealed": seal(self._secret, tokens)})

    def _ask_for_ends(self) -> None:
        """Find out why YARN's containers of lost ranks ended."""
        # Spark may fail the stage before the lost container's connection is seen to be gone
        open_phases = {RankPhase.LOST}
        if not self._thread.is_alive():
            open_phases |= {RankPhase.CONNECTED, RankPhase.RUNNING}
        untold = [
            status
            for status in self._ranks
            if status.phase in open_phases and status.container and not status.end
        ]
        if untold and not _jvm.is_connect(self._spark):  # a client cannot ask YARN
            ends = _jvm.container_ends(self._spark)
            for status in untold:
                status.end = ends.get(status.container, "")
                if status.end:
                    status.phase = RankPhase.LOST

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._server.inbox.get_nowait())

    def _take(self, envelope: Envelope) -> None:
        if envelope.rank == _NOT_A_RANK:
            self._thread.join()
            return
        if self._ranks.take(envelope):
            self._server.broadcast({"kind": "go", "attempt": self._ranks.attempt})

    def restart_children(self, attempt: int) -> bool:
        """Have every agent replace its child, for another try; return whether they all can."""
        self._drain()
        if not (self._thread.is_alive() and self._ranks.can_begin_again):
            return False
        self._ranks.begin_again(attempt)
        self._server.broadcast({"kind": "restart", "attempt": attempt})
        return True

    def _check_job(self) -> None:
        if any(status.phase is RankPhase.FAILED for status in self._ranks):
            return  # the ranks say it better
        if any(status.end for status in self._ranks):
            return  # and so does YARN
        if self._job_error is not None:
            text = str(self._job_error)
            if _CANCELLED_BY_USER.search(text):
                msg = f"{self._request.name}: the Spark job was cancelled"
                raise CancelledError(msg) from self._job_error
            msg = (
                f"{self._request.name}: the Spark job of the workers failed: "
                f"{_jvm.brief_cause(self._job_error)}"
            )
            raise ClusterError(msg) from self._job_error
        if errors := self._agent_errors():
            raise ClusterError("; ".join(errors))
        if any(status.phase is not RankPhase.DONE for status in self._ranks):
            msg = f"{self._request.name}: the Spark job ended before its workers did"
            raise ClusterError(msg)

    def halt(self) -> None:
        """Have every agent end its child, and wait for what follows."""
        self._server.broadcast({"kind": "halt"})

    def ask_for_stacks(self) -> None:
        """Have every child write its stack, and the agents send it."""
        self._server.broadcast({"kind": "dump"})

    def release(self) -> None:
        """Let the children go, once every rank is done."""
        self._server.broadcast({"kind": "release"})

    def cancel(self, reason: str) -> None:
        """Stop every rank: a message first, then the Spark job."""
        logger.info("%s: stopping the workers: %s", self._request.name, reason)
        self._server.broadcast({"kind": "stop", "reason": reason})
        self._thread.join(timeout=min(_LISTEN_S, self._request.timeouts.stop_s))
        if self._thread.is_alive():
            # agents that do not listen (still in the rendezvous, or frozen) end with their job
            cancel_job(self._spark, self._tag)

    def close(self) -> None:
        """Wait for the tasks' end and close the control channel.

        Raises:
            TimeoutExpiredError: the tasks did not end in time.
        """
        timeout_s = self._request.timeouts.stop_s
        try:
            self._thread.join(timeout=timeout_s)
            if self._thread.is_alive():
                cancel_job(self._spark, self._tag)
                self._thread.join(timeout=timeout_s)
            if isinstance(self._server, RemoteControl):
                self._server.fetch()
            self._drain()  # the last log lines
        finally:
            self._server.close()
        for error in self._agent_errors():
            logger.warning("%s: %s", self._request.name, error)
        if self._thread.is_alive():
            what = "the workers' Spark job to end"
            raise TimeoutExpiredError.waiting_for(what, 2 * timeout_s, _STOP_SETTING)

    def _agent_errors(self) -> list[str]:
        return [f"rank {o['rank']}: {o['error']}" for o in self._outcomes or () if o["error"]]

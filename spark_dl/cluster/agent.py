"""The agent: what runs inside a Spark task. It forms the cluster, starts the child and watches it.

The child may crash, hang or be killed for its memory; the agent lives to say why, and starts a new
one when the driver wants another try. An agent never raises to Spark, which would resubmit the
stage: it reports to the driver over the control channel and ends well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from spark_dl.cluster.codec import (
    HANDSHAKE_TIMEOUT_S,
    Channel,
    ChannelClosedError,
    ChannelRefusedError,
    Message,
    connect,
    unseal,
)
from spark_dl.cluster.containers import container_facts
from spark_dl.cluster.lines import INTERVAL_S, LogLines
from spark_dl.cluster.oom import oom_kills
from spark_dl.cluster.process import MALLOC, ChildEvent, ChildProcess
from spark_dl.errors import ClusterError, RankFailure
from spark_dl.storage.tokens import TokenFile

if TYPE_CHECKING:
    from types import TracebackType

    from spark_dl.cluster.plan import LaunchPlan
    from spark_dl.cluster.spec import ClusterSpec

__all__ = ["Agent", "TaskFacts"]

logger = logging.getLogger(__name__)

#: Secrets of Spark's that an executor gives its Python; the user's code has no use for them.
_SECRETS: Final = frozenset(
    {
        "_SPARK_AUTH_SECRET",
        "PYTHON_WORKER_FACTORY_SECRET",
        # spark.ssl.rpc, since Spark 4.0
        "_SPARK_SSL_RPC_KEY_PASSWORD",
        "_SPARK_SSL_RPC_KEY_STORE_PASSWORD",
        "_SPARK_SSL_RPC_PRIVATE_KEY_PASSWORD",
        "_SPARK_SSL_RPC_TRUST_STORE_PASSWORD",
    }
)
#: How long a child gets to write its stack.
_STACK_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What Spark says of a task.

    Attributes:
        rank: its partition, which is its rank.
        cores: CPU cores that Spark gave it.
        gpus: addresses of the GPUs that Spark gave it.
    """

    rank: int
    cores: int = 1
    gpus: tuple[str, ...] = ()


class Agent:
    """One rank's agent; a context manager that leaves no process behind.

    Args:
        plan: what the driver sent.
        task: what Spark says of this task.
    """

    def __init__(self, plan: LaunchPlan, task: TaskFacts) -> None:
        """Connect to the driver and start the child, which preloads its modules from now on."""
        self._plan = plan
        self.task = task
        self.host = socket.gethostname()
        #: Orders of the driver, and events of children with the number of their try.
        self._events: queue.SimpleQueue[Message | tuple[int, ChildEvent]] = queue.SimpleQueue()
        self._attempt = plan.attempt
        self._is_alive = True
        self._is_released = False
        self._heard = time.monotonic()
        self._logs = LogLines()
        self._error: dict[str, Any] | None = None
        self._has_result = False
        self._is_halted = False
        self.stopping = threading.Event()
        self._tokens = TokenFile()
        self._channel: Channel = connect(
            plan.control,
            plan.secret,
            # leaves time to say so before the driver gives up
            timeout_s=max(plan.timeouts.start_s / 3, HANDSHAKE_TIMEOUT_S),
        )
        self._channel.send(
            {
                "kind": "hello",
                "rank": task.rank,
                "host": self.host,
                "pid": os.getpid(),
                **container_facts(),
            }
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self._beating = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        self.child = self._start_child()

    def _start_child(self) -> ChildProcess:
        attempt = self._attempt
        self._oom_kills = oom_kills()
        return ChildProcess(
            environ=self._environ(),
            preload=self._plan.preload,
            deliver=lambda event: self._events.put((attempt, event)),
            noise=self._plan.noise,
        )

    def _environ(self) -> dict[str, str]:
        folders = [
            *sys.path,
            *(folder for folder in self._plan.search_path if folder not in sys.path),
        ]
        inherited = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        return {
            **MALLOC,
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, folders)),
            "PYTHONFAULTHANDLER": "1",
            # the port is held until the child has bound it, see PortHolder
            "TF_GRPC_REUSE_PORT": "true",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "OMP_NUM_THREADS": str(self.task.cores),
            "CUDA_VISIBLE_DEVICES": ",".join(self.task.gpus),
            "SPARK_DL_TOKEN_FILE": self._tokens.path,
            **self._plan.environ,
        }

    def _listen(self) -> None:
        try:
            while True:
                self._handle(self._channel.receive()[0])
        except (ChannelClosedError, ChannelRefusedError):
            self._handle({"kind": "stop", "reason": "the driver is gone"})

    def _handle(self, message: Message) -> None:
        self._heard = time.monotonic()
        if message.get("kind") == "alive":
            return
        if message.get("kind") == "tokens":
            self._tokens.replace(unseal(self._plan.secret, message["sealed"]))
            return
        if message.get("kind") == "stop":
            self.stopping.set()
        self._events.put(message)

    def _beat(self) -> None:
        """Sign to the driver; when the driver is silent, end as it believes us to be."""
        interval_s, patience_s = self._plan.timeouts.heartbeat_s, self._plan.timeouts.lost_s
        while True:
            slept = time.monotonic()
            if self._beating.wait(interval_s):
                return
            now = time.monotonic()
            if now - slept > patience_s / 2:
                self._heard = now  # it was we who were away
            elif now - self._heard > patience_s and not self.stopping.is_set():
                self._handle({"kind": "stop", "reason": "the driver is silent"})
            self._send({"kind": "heartbeat"})

    def _send(self, message: Message) -> None:
        # the driver's end is noticed by _listen; there is nobody left to tell
        with contextlib.suppress(ChannelClosedError):
            self._channel.send({**message, "attempt": self._attempt})

    def run(self, spec: ClusterSpec, tf_config: str | None = None) -> None:
        """Give the child its job and watch it, and those that replace it, until the run is over.

        Args:
            spec: the cluster that was formed.
            tf_config: TF_CONFIG where the backend has its own; by default it follows from `spec`.
        """
        environ = spec.environ(self.task.rank, os.environ)
        if tf_config is not None:
            environ["TF_CONFIG"] = tf_config
        self._give_job(spec, environ)
        while self._is_alive or not (self.stopping.is_set() or self._is_released):
            item = self._next()
            if isinstance(item, tuple):
                attempt, event = item
                if attempt == self._attempt:  # else a child that was replaced
                    self._take(event)
            elif item.get("kind") == "go":
                self._give_job(spec, environ)
            else:
                self._obey(item)

    def _give_job(self, spec: ClusterSpec, environ: dict[str, str]) -> None:
        rank = self.task.rank
        context = {
            "rank": rank,
            "world_size": spec.world_size,
            "local_rank": spec.local_rank(rank),
            "attempt": self._attempt,
            "cores": self.task.cores,
            "backend": self._plan.backend,
            "addresses": spec.addresses,
            "start_timeout_s": self._plan.timeouts.start_s,
        }
        self.child.start_job({"context": context, "environ": environ}, self._plan.job)

    def _next(self) -> tuple[int, ChildEvent] | Message:
        while True:
            try:
                return self._events.get(timeout=INTERVAL_S)
            except queue.Empty:
                self._send_logs()

    def _obey(self, message: Message) -> None:
        match message.get("kind"):
            case "stop":
                self.child.kill()
            case "halt":
                self._is_halted = True
                self.child.kill()
            case "release":
                self._is_released = True
                self.child.release()
            case "dump":
                self.child.dump_stack()
                threading.Timer(_STACK_S, self._send_stack, [self.child.step]).start()
            case "restart":
                self._restart(int(message["attempt"]))
            case other:
                logger.warning("agent of rank %d: unknown message %r", self.task.rank, other)

    def _send_stack(self, step: int | None) -> None:
        told = {"state": self.child.state(), "lines": list(self.child.tail), "step": step}
        self._send({"kind": "stack", **told})

    def _restart(self, attempt: int) -> None:
        """Replace the child; the new one gets its job once all ranks have theirs ready."""
        self.child.close()
        self._attempt = attempt
        self._error = None
        self._has_result = False
        self._is_halted = False
        self._is_alive = True
        self.child = self._start_child()
        self._send({"kind": "ready"})

    def _take(self, event: ChildEvent) -> None:
        match event.kind:
            case "event":
                self._relay(event.event)
            case "log":
                self._logs.add(event.line)
                self._send_logs()
            case "exit":
                self._is_alive = False
                self._finish(event.code)

    def _relay(self, event: Message) -> None:
        match event.get("kind"):
            case "error":
                self._error = event
            case "result":
                self._has_result = True
                self._send({"kind": "done", "result": event["result"]})
            case _:
                self._send({"kind": "event", "event": event})

    def _send_logs(self, *, in_any_case: bool = False) -> None:
        if lines := self._logs.take(time.monotonic(), in_any_case=in_any_case):
            self._send({"kind": "log", "lines": lines})

    def _finish(self, code: int) -> None:
        self._send_logs(in_any_case=True)
        is_over = self.stopping.is_set() or self._is_halted
        if is_over or (code == 0 and self._has_result):
            self._send({"kind": "stopped"})
            return
        self.report_failure(
            self._failure(code),
            is_consequence=bool(self._error and self._error["peer"]),
            step=self.child.step,
        )

    def _failure(self, code: int) -> RankFailure:
        tail = tuple(self.child.tail)
        rank = self.task.rank
        if self._error is not None:
            return RankFailure(
                rank=rank,
                host=self.host,
                error=self._error["error"],
                message=self._error["message"],
                traceback=self._error["traceback"],
                log_tail=tail,
                retryable=self._error["retryable"],
            )
        message = "the worker process ended without a result"
        is_of_memory = code == -signal.SIGKILL and (oom_kills() or 0) > (self._oom_kills or 0)
        if is_of_memory:
            message = (
                "the system killed it for the memory limit of its container: raise "
                "spark.executor.memoryOverhead, which TensorFlow's memory counts against"
            )
        elif code == -signal.SIGKILL:
            message += (
                "; the system may have killed it for its memory: TensorFlow's memory counts "
                "against spark.executor.memoryOverhead"
            )
        return RankFailure(
            rank=rank,
            host=self.host,
            error=ChildProcess.describe_exit(code),
            message=message,
            log_tail=tail,
            retryable=code < 0,
            is_of_memory=is_of_memory,
        )

    def report_failure(
        self, failure: RankFailure, *, is_consequence: bool = False, step: int | None = None
    ) -> None:
        """Tell the driver that this rank failed, and after which step."""
        told = {"failure": asdict(failure), "is_consequence": is_consequence, "step": step}
        self._send({"kind": "failed", **told})

    def close(self) -> None:
        """End the child and the connection."""
        self._beating.set()
        self.child.close()
        self._channel.close()
        self._tokens.close()

    def __enter__(self) -> Self:
        """Return the agent."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Report what went wrong in the agent itself, if anything did, and leave nothing behind."""
        if error is not None and not self.stopping.is_set():
            self.report_failure(
                RankFailure(
                    rank=self.task.rank,
                    host=self.host,
                    error=type(error).__name__,
                    message=str(error),
                    traceback=""
                    if isinstance(error, ClusterError)
                    else "".join(traceback.format_exception(error)),
                    log_tail=tuple(self.child.tail),
                    retryable=isinstance(error, ClusterError) and error.retryable,
                )
            )
        self.close()

"""The tiny job: one task a slot tells what it sees, and knocks at the driver's door."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import secrets
import socketserver
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from spark_dl._jvm import brief_cause
from spark_dl.cli.doctor.installed import PACKAGES
from spark_dl.cluster import probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyspark.sql import SparkSession

    from spark_dl.cli.doctor.facts import SessionFacts

__all__ = ["ask_executors"]

logger = logging.getLogger(__name__)

_GROUP: Final = "spark_dl-doctor"
_MOST_TASKS: Final = 64
#: Of the deadline, what a single task may wait for TensorFlow.
_SHARE: Final = 0.5
_CANCEL_S: Final = 10.0


def ask_executors(
    spark: SparkSession,
    session: SessionFacts,
    marks: Mapping[str, tuple[str, str]],
    *,
    ports: tuple[int, int] | None,
    num_tasks: int | None,
    deadline_s: float,
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the facts of each task, or none of them and why.

    Args:
        spark: the session.
        session: what is known of it.
        marks: path → the driver's file there and what it holds.
        ports: the range that workers may use.
        num_tasks: on Connect, which cannot count its slots.
        deadline_s: after so many seconds the job is cancelled.
    """
    if session.slots == 0 and not session.is_dynamic:
        return [], "there is no executor to run it"
    tasks = min(session.slots or num_tasks or 2, _MOST_TASKS)
    with contextlib.ExitStack() as stack:
        question: dict[str, Any] = {
            "packages": PACKAGES,
            "timeout_s": deadline_s * _SHARE,
            "ask_tensorflow": "spark.executor.resource.gpu.amount" in session.conf,
            "ports": ports,
            "paths": dict(marks.values()),
            "driver": None,
            "token": secrets.token_hex(16),
        }
        if not session.is_connect:
            question["driver"] = stack.enter_context(_door(session, question["token"], ports))
        job = _Job(spark, question, tasks=tasks, barrier=not session.is_dynamic)
        return job.run(deadline_s, is_connect=session.is_connect)


class _Job:
    """The job in a thread of its own, so that a hung one can be left."""

    def __init__(
        self, spark: SparkSession, question: dict[str, Any], *, tasks: int, barrier: bool
    ) -> None:
        self._spark = spark
        self._question = question
        self._tasks = tasks
        self._barrier = barrier
        self._answers: list[dict[str, Any]] = []
        self._problem: str | None = None

    def run(
        self, deadline_s: float, *, is_connect: bool
    ) -> tuple[list[dict[str, Any]], str | None]:
        from pyspark import InheritableThread

        submit = self._on_connect if is_connect else self._on_classic
        thread: Any = (
            threading.Thread(target=self._guarded, args=(submit,), daemon=True)
            if is_connect
            else InheritableThread(target=self._guarded, args=(submit,), daemon=True)
        )
        thread.start()
        thread.join(deadline_s)
        if thread.is_alive():
            if is_connect:
                self._spark.interruptAll()
            else:
                self._spark.sparkContext.cancelJobGroup(_GROUP)
            thread.join(_CANCEL_S)
            return [], f"it was ended after {deadline_s:g} s (--deadline-s): a task hangs"
        return self._answers, self._problem

    def _guarded(self, submit: Any) -> None:  # noqa: ANN401 - a bound method
        try:
            self._answers = [json.loads(text) for text in submit()]
        except Exception as error:
            logger.debug("the tiny job failed", exc_info=error)
            self._problem = brief_cause(error)

    def _on_classic(self) -> list[str]:
        context = self._spark.sparkContext
        context.setJobGroup(_GROUP, f"spark_dl: doctor, {self._tasks} tasks")
        with _by_value():
            body = functools.partial(probe.probe_rows, self._question, barrier=self._barrier)
            rows: Any = context.parallelize(range(self._tasks), self._tasks)
            rows = (rows.barrier() if self._barrier else rows).mapPartitions(body)
            answers: list[str] = rows.collect()
        return answers

    def _on_connect(self) -> list[str]:
        with _by_value():
            body = functools.partial(probe.probe_batches, self._question, barrier=self._barrier)
            ranks = self._spark.range(0, self._tasks, 1, self._tasks)
            rows = ranks.mapInArrow(body, "facts string", barrier=self._barrier).collect()
        return [row.facts for row in rows]


@contextlib.contextmanager
def _by_value() -> Iterator[None]:
    """Send the probe's code itself: executors may lack `spark_dl`, which is a finding."""
    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(probe)  # type: ignore[no-untyped-call]  # pyspark's
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(probe)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _door(
    session: SessionFacts, token: str, ports: tuple[int, int] | None
) -> Iterator[tuple[str, int]]:
    """Listen where workers' agents would connect; tell the time to who knows the token."""

    class _Tell(socketserver.StreamRequestHandler):
        timeout = 5

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                if secrets.compare_digest(self.rfile.readline(256).strip(), token.encode()):
                    self.wfile.write(f"{time.time()!r}\n".encode())

    class _Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    host = session.conf.get("spark.driver.host") or "127.0.0.1"
    where = session.conf.get("spark.driver.bindAddress") or host
    with probe.first_that_listens(lambda port: _Server((where, port), _Tell), ports) as server:
        thread = threading.Thread(target=server.serve_forever, name="doctor-door", daemon=True)
        thread.start()
        try:
            yield host, server.server_address[1]
        finally:
            server.shutdown()
            thread.join()

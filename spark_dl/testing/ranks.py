"""Run a function on several ranks of this machine: real processes, without Spark."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import time
from typing import TYPE_CHECKING, Any

from spark_dl.cluster.process import ChildEvent, ChildProcess
from spark_dl.cluster.shipping import pickle_by_value
from spark_dl.cluster.spec import ClusterSpec, PortHolder
from spark_dl.errors import RankFailure, TimeoutExpiredError, TrainingFailedError
from spark_dl.testing.nursery import fork_child, nursery
from spark_dl.training.entry import NOISE, PRELOAD

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run_ranks"]

_HOST = "127.0.0.1"
#: How long the host gets beyond the deadline of its ranks, to say which of them it is.
_GRACE_S = 60.0


def run_ranks(
    function: Callable[[Any, Any], dict[str, Any]],
    value: object,
    *,
    world_size: int,
    gpus: str = "",
    timeout_s: float = 240.0,
) -> list[dict[str, Any]]:
    """Run a function in child processes as a cluster would, on loopback.

    They are forked from a process that has TensorFlow loaded (`spark_dl.testing.nursery`): the
    first call waits for TensorFlow's import, the others do not.

    Args:
        function: ``function(value, context) -> JSON-able dict``; see `ChildContext`.
        value: a picklable value.
        world_size: number of ranks.
        gpus: ``CUDA_VISIBLE_DEVICES`` of every rank, by default none.
        timeout_s: deadline of the whole.

    Returns:
        What each rank returned, in order.

    Raises:
        TrainingFailedError: a rank failed.
        TimeoutExpiredError: the deadline passed.
    """
    job = pickle_by_value((function, value))
    request = (job, world_size, gpus, timeout_s)
    found: list[dict[str, Any]] = nursery(PRELOAD).call(
        _run_here, request, timeout_s=timeout_s + _GRACE_S
    )
    return found


def _run_here(request: tuple[bytes, int, str, float]) -> list[dict[str, Any]]:
    """Start the ranks as children of this process, which is forked from the nursery."""
    job, world_size, gpus, timeout_s = request
    news: queue.SimpleQueue[tuple[int, ChildEvent]] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(PortHolder()) for _ in range(world_size)]
        spec = ClusterSpec(tuple(f"{_HOST}:{holder.port}" for holder in holders))
        children = [_start(rank, news, gpus) for rank in range(world_size)]
        for rank, child in enumerate(children):
            stack.callback(child.close)
            context = {
                "rank": rank,
                "world_size": world_size,
                "local_rank": rank,
                "addresses": spec.addresses,
            }
            place = {"context": context, "environ": spec.environ(rank, os.environ)}
            child.start_job(place, job)
        return _collect(children, news, time.monotonic() + timeout_s, timeout_s)


def _start(rank: int, news: queue.SimpleQueue[tuple[int, ChildEvent]], gpus: str) -> ChildProcess:
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TF_GRPC_REUSE_PORT": "true",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": gpus,
    }
    return ChildProcess(
        environ=environ,
        preload=PRELOAD,
        noise=NOISE,
        start=fork_child,
        deliver=lambda event: news.put((rank, event)),
    )


def _collect(
    children: list[ChildProcess],
    news: queue.SimpleQueue[tuple[int, ChildEvent]],
    deadline: float,
    timeout_s: float,
) -> list[dict[str, Any]]:
    results: dict[int, dict[str, Any]] = {}
    consequences: dict[int, RankFailure] = {}
    while len(results) + len(consequences) < len(children):
        try:
            rank, event = news.get(timeout=max(deadline - time.monotonic(), 0.01))
        except queue.Empty:
            missing = sorted(set(range(len(children))) - set(results))
            tails = [line for rank in missing for line in children[rank].tail]
            what = f"ranks {missing} to return; their last lines: {tails}"
            raise TimeoutExpiredError.waiting_for(what, timeout_s, "timeout_s") from None
        kind = event.event.get("kind", event.kind)
        if kind == "result":
            results[rank] = event.event["result"] or {}
        elif kind == "error" and event.event.get("peer"):
            # a peer is gone: whatever ended that one is the cause
            consequences[rank] = _failure(rank, event, children[rank])
        elif (kind == "error" or event.kind == "exit") and rank not in consequences:
            raise TrainingFailedError.from_failures([_failure(rank, event, children[rank])])
    if consequences:
        raise TrainingFailedError.from_failures(list(consequences.values()))
    for child in children:
        child.release()
    return [results[rank] for rank in range(len(children))]


def _failure(rank: int, event: ChildEvent, child: ChildProcess) -> RankFailure:
    told = event.event
    return RankFailure(
        rank=rank,
        host=_HOST,
        error=told.get("error") or ChildProcess.describe_exit(event.code),
        message=told.get("message", ""),
        traceback=told.get("traceback", ""),
        log_tail=tuple(child.tail),
    )

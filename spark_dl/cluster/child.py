"""The child process of an agent: it runs one function and cannot outlive its agent.

Started as ``python -m spark_dl.cluster.child JOB_FD EVENT_FD STEP_FD AGENT_PID [PRELOAD,…]``. It
imports the modules to preload while the cluster is still forming, then reads one job (a JSON header
and a cloudpickle blob) from its own agent. Events go back as JSON lines: ``started``, whatever the
function reports, and at last ``result`` or ``error``. The number of the last step goes to a file in
memory that the agent reads once this process is dead, however it died.

TensorFlow's collectives can be configured once per process, and Spark reuses its Python workers:
that is why the function never runs in the Spark task itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import signal
import struct
import sys
import threading
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from spark_dl.keras_extras import import_on_demand

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DUMP_SIGNAL",
    "RELEASE",
    "STEP",
    "ChildContext",
    "die_with_parent",
    "main",
    "preload",
    "read_exactly",
]

#: Sent by the agent once all ranks are done: a rank that left early would break the others' last
#: collective.
RELEASE: Final = b"R"
#: Has a child write the stacks of all its threads to its log, whatever it does.
DUMP_SIGNAL: Final = signal.SIGUSR2
#: The last step, at the beginning of its file.
STEP: Final = struct.Struct("=q")
_LENGTHS: Final = struct.Struct(">QQ")
_PR_SET_PDEATHSIG: Final = 1

#: Errors with which TensorFlow reports that a *peer* is gone: a consequence, seldom the cause.
_PEER_ERRORS: Final = frozenset(
    {"UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError"}
)


def _ignore(_: object) -> None:
    """Take anything and do nothing with it."""


@dataclass(frozen=True)
class ChildContext:
    """What a function that runs on the cluster knows of its place in it.

    Attributes:
        rank: this process's rank, 0 is the chief.
        world_size: number of ranks.
        local_rank: number of lower ranks on the same host.
        attempt: 1 for the first try of a run.
        cores: CPU cores of the Spark task.
        backend: name of the backend that formed the cluster.
        addresses: ``host:port`` of each rank's TensorFlow server.
        start_timeout_s: how long ranks may wait for each other until they can work together.
        report: sends a JSON-able event to the driver. Three kinds are for the agent itself:
            ``wait`` (with ``what``, ``timeout_s`` and ``setting``) has it end this process with
            that cause unless ``wait-over`` follows in time; ``step`` (with ``run_step``) costs a
            microsecond and tells it after which step this process died, if it does.
    """

    rank: int
    world_size: int
    local_rank: int = 0
    attempt: int = 1
    cores: int = 1
    backend: str = ""
    addresses: tuple[str, ...] = ()
    start_timeout_s: float = 120.0
    report: Callable[[dict[str, Any]], None] = field(default=_ignore, compare=False, repr=False)

    @property
    def is_chief(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, or end it now if that is so."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


class _Events:
    """Writes events to the agent; thread-safe."""

    def __init__(self, fd: int, step_fd: int) -> None:
        self._file = os.fdopen(fd, "wb", buffering=0)
        self._step_fd = step_fd
        self._lock = threading.Lock()

    def __call__(self, event: dict[str, Any]) -> None:
        if event.get("kind") == "step":
            os.pwrite(self._step_fd, STEP.pack(int(event["run_step"])), 0)
            return
        line = json.dumps(event, default=float).encode() + b"\n"
        with self._lock:
            self._file.write(line)


def preload(names: str) -> None:
    """Import modules, given as ``name,name``; what Keras brings for other uses waits."""
    import_on_demand()
    for module in filter(None, names.split(",")):
        # a missing module is reported by the function that needs it, with its own message
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def read_exactly(fd: int, size: int) -> bytes:
    """Read so many bytes; end the process where the other side is gone."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(fd, size - len(data))
        if not chunk:
            os._exit(1)  # the agent is gone
        data += chunk
    return bytes(data)


def _watch_agent(fd: int, released: threading.Event) -> None:
    """End the process when the agent's end of the pipe closes."""
    while True:
        byte = os.read(fd, 1)
        if not byte:
            os._exit(1)
        if byte == RELEASE:
            released.set()


def _describe(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next  # the user's frames are what helps
    is_peer = kind.__name__ in _PEER_ERRORS and kind.__module__.startswith("tensorflow.")
    return {
        "kind": "error",
        "error": kind.__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(kind, error, trace)),
        "peer": is_peer,
        "retryable": is_peer or getattr(error, "retryable", False) is True,
    }


def _run(job_fd: int, report: _Events) -> None:
    import cloudpickle

    header_size, job_size = _LENGTHS.unpack(read_exactly(job_fd, _LENGTHS.size))
    place = json.loads(read_exactly(job_fd, header_size))
    job = read_exactly(job_fd, job_size)
    released = threading.Event()
    threading.Thread(target=_watch_agent, args=(job_fd, released), daemon=True).start()
    os.environ.update(place["environ"])
    function, value = cloudpickle.loads(job)
    report({"kind": "started", "pid": os.getpid()})
    context = ChildContext(**place["context"], report=report)
    result = function(value, context)
    report({"kind": "result", "result": result})
    released.wait()


def main(argv: list[str]) -> None:
    """Run one job and leave without waiting for anything that the function left behind."""
    job_fd, event_fd, step_fd, agent_pid = (int(text) for text in argv[:4])
    die_with_parent(agent_pid)
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL)
    report = _Events(event_fd, step_fd)
    code = 0
    try:
        preload(argv[4])
        _run(job_fd, report)
    except BaseException as error:  # noqa: BLE001 - whatever ended the function is what the agent must report
        report(_describe(error))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What `spark-dl doctor` looks at on a host, the driver's or an executor's.

The module travels by value to executors that may lack `spark_dl` and everything else: it imports
the standard library only, takes and returns plain JSON values, and never raises for what it finds.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["first_that_listens", "free_ports", "look", "probe_batches", "probe_rows"]

Facts = dict[str, Any]
Server = TypeVar("Server")

_CONNECT_S = 5.0
_GPUS = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"


def look(question: Facts) -> Facts:
    """Return the facts of the host that this runs on.

    Args:
        question: ``packages``: distributions to look for; ``ask_tensorflow``: whether to count its
            GPUs even where no device is seen; ``timeout_s``: most seconds for that.
    """
    shm = "/dev/shm"  # noqa: S108 - where Linux has its shared memory
    devices = len(glob.glob("/dev/nvidia[0-9]*"))
    return {
        "host": socket.gethostname(),
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "packages": _versions(question["packages"]),
        "shm": _room(shm),
        "disks": {folder: _room(folder) for folder in _local_folders()},
        "memory_bytes": _memory(),
        "gpu_devices": devices,
        "tensorflow_gpus": (
            _tensorflow_gpus(question["timeout_s"])
            if devices or question.get("ask_tensorflow")
            else None
        ),
    }


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _local_folders() -> list[str]:
    """Return where Spark lets tasks write; YARN names its folders otherwise."""
    named = os.environ.get("LOCAL_DIRS") or os.environ.get("SPARK_LOCAL_DIRS") or ""
    return [folder for folder in named.split(",") if folder] or [tempfile.gettempdir()]


def _room(folder: str) -> Facts:
    """Return the free bytes of a folder and what is wrong when it cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
        return {"free_bytes": shutil.disk_usage(folder).free, "problem": None}
    except OSError as error:
        return {"free_bytes": 0, "problem": f"{type(error).__name__}: {error.strerror}"}


def _memory() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _tensorflow_gpus(timeout_s: float) -> int | str:
    """Return how many GPUs TensorFlow sees, or why it cannot say; in a process of its own."""
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", _GPUS],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return int(done.stdout.split()[-1])
    except subprocess.TimeoutExpired:
        return f"TensorFlow did not answer within {timeout_s:g} s"
    except (OSError, ValueError, IndexError):
        lines = done.stderr.strip().splitlines() if "done" in locals() else []
        return lines[-1] if lines else "TensorFlow could not be started"


def probe_rows(question: Facts, rows: Iterable[Any], *, barrier: bool) -> Iterator[str]:
    """Body of a task: its facts as JSON."""
    from pyspark import BarrierTaskContext, TaskContext

    for _ in rows:
        pass
    context = BarrierTaskContext.get() if barrier else TaskContext.get()
    if context is None:  # never inside a task
        return
    rank = context.partitionId()
    resources = context.resources()
    facts = look(question)
    facts["rank"] = rank
    facts["spark_gpus"] = len(resources["gpu"].addresses) if "gpu" in resources else 0
    facts["driver"] = _meet_driver(question)
    facts["ports"] = free_ports(question.get("ports"))
    facts["paths"] = {path: _use(path, text, rank) for path, text in question["paths"].items()}
    if barrier:
        facts["peers"] = _meet_peers(question, facts, context)
    yield json.dumps(facts)


def probe_batches(question: Facts, batches: Iterable[Any], *, barrier: bool) -> Iterator[Any]:
    """Body of a task of a Connect session, which has no RDDs."""
    import pyarrow as pa

    for facts in probe_rows(question, batches, barrier=barrier):
        yield pa.RecordBatch.from_pydict({"facts": [facts]})


def _meet_driver(question: Facts) -> Facts:
    """Return whether the driver answers, and how its clock differs from this one."""
    if question.get("driver") is None:
        return {"problem": None, "skew_s": None, "address": None}
    address = tuple(question["driver"])
    try:
        with socket.create_connection(address, timeout=_CONNECT_S) as connection:
            asked = time.time()
            connection.sendall(question["token"].encode() + b"\n")
            answer = connection.makefile().readline()
            took = time.time() - asked
            return {
                "problem": None,
                "skew_s": float(answer) - (asked + took / 2),
                "address": connection.getsockname()[0],
            }
    except (OSError, ValueError) as error:
        return {"problem": f"{type(error).__name__}: {error}", "skew_s": None, "address": None}


def free_ports(span: Sequence[int] | None) -> int | None:
    """Return how many ports of a range can be bound here."""
    if span is None:
        return None
    return sum(_bindable(port) for port in range(span[0], span[1] + 1))


def _bindable(port: int) -> bool:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("", port))
        except OSError:
            return False
    return True


def _meet_peers(question: Facts, facts: Facts, context: Any) -> list[str]:  # noqa: ANN401 - pyspark's
    """Return which executors cannot be reached from here, each with why."""
    span = question.get("ports")
    with first_that_listens(lambda port: socket.create_server(("", port)), span) as server:
        door = (
            facts["driver"]["address"] or facts["host"],
            server.getsockname()[1],
            facts["host"],
        )
        peers = [json.loads(text) for text in context.allGather(json.dumps(door))]
        if span is not None:  # what the probes themselves hold on this host is free, too
            ours = [peer[1] for peer in peers if peer[2] == facts["host"]]
            held = sum(span[0] <= port <= span[1] for port in ours)
            facts["ports"] = held + sum(_bindable(port) for port in range(span[0], span[1] + 1))
        problems = [_knock(peer[0], peer[1]) for peer in peers]
        context.barrier()  # nobody closes the door before all have knocked
    return [problem for problem in problems if problem]


def first_that_listens(start: Callable[[int], Server], span: Sequence[int] | None) -> Server:
    """Return a server on the first port of a range that is free; without one, on any port."""
    for port in range(span[0], span[1] + 1) if span else ():
        with contextlib.suppress(OSError):
            return start(port)
    return start(0)


def _knock(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        return f"{host}:{port}: {error}"
    return None


def _use(path: str, text: str, rank: int) -> Facts:
    """Read the file that the driver has written, and write one beside it."""
    answer: Facts = {"read": None, "write": None}
    read, write = _access(path)
    for what, act in (
        ("read", lambda: _same(read(path), text)),
        ("write", lambda: write(f"{path}.{rank}", text)),
    ):
        try:
            act()
        except Exception as error:  # noqa: BLE001 - any client library, any error: that is the finding
            answer[what] = f"{type(error).__name__}: {error}"
    return answer


def _same(found: str, text: str) -> None:
    if found != text:
        msg = f"it holds {found!r} instead of what the driver wrote"
        raise OSError(msg)


def _access(path: str) -> tuple[Callable[[str], str], Callable[[str, str], Any]]:
    if "://" not in path:
        return _read, _write
    from spark_dl.storage import Storage

    storage = Storage(path)
    return storage.read_text, storage.write_atomic


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)

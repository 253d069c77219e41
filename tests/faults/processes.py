"""Which process of a training is what, by ``/proc``: child that trains, agent, executor."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from spark_dl.testing import is_alive


def command(pid: int) -> list[bytes]:
    """Return the words that a process was started by; none if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return [b""]


def is_child(pid: int) -> bool:
    """Whether a process is a child that trains."""
    return is_alive(pid) and b"spark_dl.cluster.child" in command(pid)


def parent(pid: int) -> int:
    """Return the parent of a process; that of a child is its agent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def executor(pid: int) -> int:
    """Return the executor's JVM above a process."""
    while not command(pid)[0].endswith(b"java"):
        pid = parent(pid)
    return pid


def wait_for_end(pids, deadline_s: float = 60) -> None:
    """Wait until processes are gone: none may outlive its driver."""
    deadline = time.monotonic() + deadline_s
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)

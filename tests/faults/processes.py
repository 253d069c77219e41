"""Which process of a training is what, by ``/proc``: child that trains, agent, executor."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from spark_dl.testing import descendants, is_alive

logger = logging.getLogger(__name__)

#: What was hit since a test began, and all that it had started.
_hit: list[int] = []


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


def executors(pid: int) -> set[int]:
    """Return the executors' JVMs below a process."""
    return {below for below in descendants(pid) if is_executor(below)}


def is_executor(pid: int) -> bool:
    """Whether a process is the JVM of an executor."""
    return is_alive(pid) and any(b"CoarseGrainedExecutorBackend" in word for word in command(pid))


def sockets(pid: int) -> dict[int, str]:
    """Return the sockets of a process by their numbers, in the kernel's words."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:"):
                found[int(name)] = target
    return found


def listens_at(pid: int) -> set[int]:
    """Return the ports at which a process listens."""
    own = set(sockets(pid).values())
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return {
        int(row[1].rpartition(":")[2], 16)
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in own
    }


def role(pid: int) -> str:
    """Return what a process is to a training."""
    if is_child(pid):
        return "child"
    words = command(pid)
    if words[0].endswith(b"java"):
        return "executor's JVM" if is_executor(pid) else "driver's JVM"
    return "agent" if any(word.endswith(b".daemon") for word in words) else "driver"


def strike(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal and log to whom; what hangs on the process is noted for `wait_for_the_hit`.

    Whose parent is gone is nobody's descendant any more: it is to be found before.
    """
    below = descendants(pid)
    logger.info("%s to pid %d, %s, with %s below it", how.name, pid, role(pid), below or "nothing")
    _hit.extend([pid, *below])
    os.kill(pid, how)


def strike_all(group: int) -> None:
    """Kill a driver that leads a process group, with all that is in it."""
    below = descendants(group)
    logger.info("SIGKILL to process group %d, driver and its JVM, with %s", group, below)
    _hit.extend([group, *below])
    os.killpg(group, signal.SIGKILL)


def wait_for_the_hit() -> None:
    """Wait until all that was hit, and what it had started, is gone."""
    hit, _hit[:] = list(_hit), []
    wait_for_end(hit)


def wait_for_end(pids, deadline_s: float = 60) -> None:
    """Wait until processes are gone: none may outlive its driver."""
    deadline = time.monotonic() + deadline_s
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)

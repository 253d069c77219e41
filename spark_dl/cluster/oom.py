"""Whether the kernel killed processes of this container for their memory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["oom_kills"]


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return how many processes of this control group were killed for its memory limit so far.

    Reads ``memory.events`` of cgroup v2 or ``memory.oom_control`` of v1 (the kernel's
    Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).

    Args:
        root: where ``proc`` and ``sys`` lie.

    Returns:
        The count; `None` where there is no such group or its files cannot be read.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if not controllers:
            events = root / "sys/fs/cgroup" / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            events = root / "sys/fs/cgroup/memory" / path.lstrip("/") / "memory.oom_control"
        else:
            continue
        try:
            pairs = [line.split() for line in events.read_text(encoding="utf-8").splitlines()]
        except OSError:
            continue
        return next((int(pair[1]) for pair in pairs if pair[0] == "oom_kill"), None)
    return None

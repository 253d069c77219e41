"""Looking at processes by `/proc`: who started whom, and who is still there."""

from __future__ import annotations

import contextlib
import os

__all__ = ["descendants", "is_alive"]


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have started."""
    children: list[int] = []
    # threads and processes that end while one looks are gone, which is what one wants to know
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),
                open(f"/proc/{pid}/task/{task}/children") as file,
            ):
                children += [int(child) for child in file.read().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

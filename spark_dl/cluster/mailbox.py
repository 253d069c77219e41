"""Messages between two processes that share a folder and nothing else.

A client of Spark Connect reaches neither the driver nor the executors by network, and Connect gives
the rows of a query only once it has ended. What both ends do share is the run directory. Messages
go there in bundles, one numbered file each, written atomically and never changed: that works on
mounts and on object stores alike, and a reader never sees half a message.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spark_dl.storage import Storage
from spark_dl.storage.filesystem import join

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Inbox", "Outbox"]


def _bundle(folder: str, number: int) -> str:
    return join(folder, f"{number:08d}.json")


class Outbox:
    """The writing end of one direction; it has one user.

    Args:
        folder: where the bundles go.
    """

    def __init__(self, folder: str) -> None:
        """Write nothing yet."""
        self._folder = folder
        self._storage = Storage(folder)
        self._next = 0

    def put(self, messages: Iterable[dict[str, Any]]) -> None:
        """Send messages as one bundle."""
        text = json.dumps(list(messages))
        self._storage.write_atomic(_bundle(self._folder, self._next), text)
        self._next += 1


class Inbox:
    """The reading end of one direction.

    Args:
        folder: the `Outbox`'s.
    """

    def __init__(self, folder: str) -> None:
        """Read nothing yet."""
        self._folder = folder
        self._storage = Storage(folder)
        self._next = 0

    def take(self) -> list[dict[str, Any]]:
        """Return the messages that have come since the last call, in order."""
        taken: list[dict[str, Any]] = []
        while self._storage.exists(path := _bundle(self._folder, self._next)):
            taken += json.loads(self._storage.read_bytes(path))
            self._next += 1
        return taken

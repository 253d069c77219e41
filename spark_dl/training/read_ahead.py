"""Shards that are opened in the background while others are read already."""

from __future__ import annotations

import collections
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["ReadAhead"]

Opened = TypeVar("Opened")


class ReadAhead(Generic[Opened]):
    """Opens all of some shards, those first that somebody waits for.

    The threads are daemons: a process that ends waits for no copy. Nothing here has a deadline of
    its own, each call to a storage has.

    Args:
        count: number of shards.
        open_one: opens the shard of a number.
        threads: shards that are opened at a time.

    Attributes:
        failure: the first error that a shard gave; no other is opened after it.
    """

    def __init__(self, count: int, open_one: Callable[[int], Opened], *, threads: int) -> None:
        """Begin with the first ones."""
        self._open_one = open_one
        self._lock = threading.Lock()
        self._queue = collections.deque(range(count))
        self._futures: list[Future[Opened]] = [Future() for _ in range(count)]
        self.failure: Exception | None = None
        for _ in range(min(threads, count)):
            threading.Thread(target=self._work, name="read-ahead", daemon=True).start()

    def get(self, numbers: Iterable[int]) -> list[Opened]:
        """Return some shards as soon as they are open.

        Raises:
            Exception: what `open_one` raised for any shard: all of them are needed in the end.
        """
        wanted = list(numbers)
        with self._lock:
            self._to_front(wanted)
        return [self._futures[number].result() for number in wanted]

    def _to_front(self, wanted: list[int]) -> None:
        waiting = set(self._queue)
        first = [number for number in wanted if number in waiting]
        rest = waiting.difference(first)
        self._queue = collections.deque([*first, *(n for n in self._queue if n in rest)])

    def _work(self) -> None:
        while (number := self._next()) is not None:
            try:
                self._futures[number].set_result(self._open_one(number))
            except Exception as error:  # noqa: BLE001 - raised where the shard is wanted
                self._give_up(error)  # first: who waits looks at the failure
                self._futures[number].set_exception(error)

    def _next(self) -> int | None:
        with self._lock:
            return self._queue.popleft() if self._queue else None

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self.failure = self.failure or error
            left, self._queue = self._queue, collections.deque()
        for number in left:
            self._futures[number].set_exception(error)

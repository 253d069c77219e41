"""Trainings of one driver share the cluster's task slots: first come, first served.

`CrossValidator(parallelism=2)` fits from two threads. A training holds slots for hours and needs
all of them at once, so that two which start together could each wait for what the other holds.
Here a training takes all that it needs, or waits without holding anything.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from spark_dl.errors import TimeoutExpiredError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TrainingQueue", "exclusive"]

logger = logging.getLogger(__name__)


class TrainingQueue:
    """The trainings that hold slots, and those that wait for them, in order of arrival.

    Example:
        >>> queue = TrainingQueue()
        >>> with queue.slots("trial 1", need=1, capacity=2, timeout_s=1):
        ...     queue.holders
        ('trial 1',)
    """

    def __init__(self) -> None:
        """Start with all slots free."""
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._held: dict[object, tuple[str, int | None]] = {}

    @property
    def holders(self) -> tuple[str, ...]:
        """The trainings that hold slots now."""
        return tuple(name for name, _ in self._held.values())

    @property
    def num_waiting(self) -> int:
        """How many trainings wait."""
        return len(self._waiting)

    @contextlib.contextmanager
    def slots(
        self, name: str, *, need: int | None, capacity: int | None, timeout_s: float
    ) -> Iterator[float]:
        """Hold slots while the block runs.

        Args:
            name: of the training, for logs and errors.
            need: slots that it needs; `None` is all of them.
            capacity: slots that the cluster has; `None` when nobody knows: then one training runs
                at a time.
            timeout_s: longest wait.

        Yields:
            The seconds that are left of the wait.

        Raises:
            TimeoutExpiredError: others held the slots all the time.
        """
        wanted = None if need is None or capacity is None or need >= capacity else need
        started = time.monotonic()
        ticket = object()
        with self._changed:
            self._wait_for_turn(ticket, name, wanted, capacity, timeout_s)
            self._held[ticket] = (name, wanted)
            self._changed.notify_all()
        try:
            yield max(timeout_s - (time.monotonic() - started), 0.0)
        finally:
            with self._changed:
                del self._held[ticket]
                self._changed.notify_all()

    def _wait_for_turn(
        self, ticket: object, name: str, wanted: int | None, capacity: int | None, timeout_s: float
    ) -> None:
        self._waiting.append(ticket)
        if not self._is_next(ticket, wanted, capacity):
            logger.info("%s waits for task slots; held by %s", name, self._describe())
        try:
            # Nobody overtakes: a training of many workers would starve behind small ones.
            if not self._changed.wait_for(
                lambda: self._is_next(ticket, wanted, capacity), timeout_s
            ):
                room = f"{wanted or 'all'} of {capacity or 'the'} task slots for {name}"
                what = f"{room}, held by {self._describe()}"
                raise TimeoutExpiredError.waiting_for(what, timeout_s, "slotsTimeout")
        finally:
            self._waiting.remove(ticket)
            self._changed.notify_all()

    def _is_next(self, ticket: object, wanted: int | None, capacity: int | None) -> bool:
        if self._waiting[0] is not ticket:
            return False
        if not self._held:
            return True
        held = [slots for _, slots in self._held.values()]
        if wanted is None or capacity is None or None in held:
            return False
        return sum(slots or 0 for slots in held) + wanted <= capacity

    def _describe(self) -> str:
        return ", ".join(self.holders) or "trainings that came earlier"


_registry: Final[dict[str, threading.Lock]] = {}
_registry_lock: Final = threading.Lock()


@contextlib.contextmanager
def exclusive(path: str, *, timeout_s: float) -> Iterator[None]:
    """Let one thread of this process at a time work on a path.

    Args:
        path: what is worked on.
        timeout_s: longest wait.

    Raises:
        TimeoutExpiredError: another thread worked on it all the time.
    """
    with _registry_lock:
        lock = _registry.setdefault(path, threading.Lock())
    if not lock.acquire(timeout=timeout_s):
        what = f"another thread that writes {path}"
        raise TimeoutExpiredError.waiting_for(what, timeout_s, "slotsTimeout")
    try:
        yield
    finally:
        lock.release()

"""A thread with an end: what is done again and again beside something else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background"]

_JOIN_S: Final = 30.0


class Background:
    """Calls a function at intervals, in a thread of its own, until it is closed.

    The function must not raise: there is nobody to tell.

    Args:
        function: what to do.
        every_s: seconds between two calls.
        name: of the thread.
        at_once: whether the first call comes without waiting.

    Example:
        >>> calls = []
        >>> background = Background(lambda: calls.append(1), every_s=60, name="x", at_once=True)
        >>> background.start()
        >>> background.close()
        >>> calls
        [1]
    """

    def __init__(
        self, function: Callable[[], None], *, every_s: float, name: str, at_once: bool = False
    ) -> None:
        """Call nothing yet."""
        self._function = function
        self._every_s = every_s
        self._at_once = at_once
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        if self._at_once:
            self._function()
        while not self._over.wait(self._every_s):
            self._function()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; a call that has begun is waited for, a stuck one not for ever."""
        self._over.set()
        self._thread.join(_JOIN_S)

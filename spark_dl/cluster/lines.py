"""A worker's log on its way to the driver: in bundles, and never more than the driver can take."""

from __future__ import annotations

from typing import Final

__all__ = ["INTERVAL_S", "LINES", "LogLines"]

#: A bundle each so many seconds.
INTERVAL_S: Final = 0.5
#: Lines of a bundle; what comes beyond them is counted.
LINES: Final = 200


class LogLines:
    """Collects lines; gives them in bundles.

    Example:
        >>> lines = LogLines()
        >>> for number in range(500):
        ...     lines.add(f"line {number}")
        >>> bundle = lines.take(now=10.0)
        >>> len(bundle), bundle[-1]
        (201, '(300 more lines within 0.5 s are left out)')
    """

    def __init__(self) -> None:
        """Hold nothing."""
        self._lines: list[str] = []
        self._left_out = 0
        self._taken = 0.0

    def add(self, line: str) -> None:
        """Hold a line, or count it where the bundle is full."""
        if len(self._lines) < LINES:
            self._lines.append(line)
        else:
            self._left_out += 1

    def take(self, now: float, *, in_any_case: bool = False) -> list[str]:
        """Return the bundle if it is time for one, else nothing.

        Args:
            now: monotonic time, in seconds.
            in_any_case: whether it is time for one however short ago the last was.
        """
        if not self._lines or not (in_any_case or now - self._taken >= INTERVAL_S):
            return []
        bundle, self._lines, self._taken = self._lines, [], now
        if self._left_out:
            bundle.append(f"({self._left_out} more lines within {INTERVAL_S:g} s are left out)")
            self._left_out = 0
        return bundle

"""Tables, durations and numbers as a terminal shows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

__all__ = ["brief_metrics", "duration", "number", "table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a header, in columns as wide as they need.

    Example:
        >>> print(table(["run", "loss"], [["a", "0.5"], ["long-name", "0.25"]]))
        run        loss
        a          0.5
        long-name  0.25
    """
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Return a metric's value in four digits; ``-`` where there is none, ``nan`` as it is.

    Example:
        >>> number(0.123456), number(None), number(12345.6)
        ('0.1235', '-', '1.235e+04')
    """
    if value is None:
        return "-"
    return "nan" if math.isnan(value) else f"{value:.4g}"


def duration(length: timedelta) -> str:
    """Return a length of time in its two largest units.

    Example:
        >>> from datetime import timedelta
        >>> duration(timedelta(seconds=8)), duration(timedelta(minutes=75))
        ('8 s', '1 h 15 min')
    """
    seconds = max(int(length.total_seconds()), 0)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def brief_metrics(metrics: Mapping[str, float | None]) -> str:
    """Return metrics in one cell, validation's first: they are what runs are chosen by."""
    ordered = sorted(metrics, key=lambda name: (not name.startswith("val_"), name))
    return ", ".join(f"{name} {number(metrics[name])}" for name in ordered) or "-"

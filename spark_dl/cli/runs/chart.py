"""One line chart as inline SVG: a curve a run, drawn without a library and without a network."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spark_dl.cli.runs.text import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Curve", "line_chart", "ticks", "value_range"]

_WIDTH: Final = 560
_HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 38
#: More marks than this make a line a caterpillar.
_MARKED_POINTS: Final = 40


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric of one run.

    Attributes:
        label: the run.
        colour: number of its colour, the same in every chart of the page.
        epochs: from 1.
        values: one an epoch; NaN leaves a gap.
    """

    label: str
    colour: int
    epochs: Sequence[int]
    values: Sequence[float]


def value_range(curves: Iterable[Curve]) -> tuple[float, float]:
    """Return the span of all finite values, never empty."""
    finite = [value for curve in curves for value in curve.values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    pad = (high - low) * 0.05
    return low - pad, high + pad


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Return round numbers within a span, about `count` of them.

    Example:
        >>> ticks(0.0, 1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def line_chart(
    title: str, curves: Sequence[Curve], *, span: tuple[float, float], last_epoch: int
) -> str:
    """Return a figure.

    Args:
        title: the metric.
        curves: those of the runs that have it.
        span: lowest and highest value of the axis, shared by charts that are to be compared.
        last_epoch: where the horizontal axis ends.
    """
    low, high = span
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(epoch: float) -> float:
        share = (epoch - 1) / (last_epoch - 1) if last_epoch > 1 else 0.5
        return _LEFT + share * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - _TOP)

    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">'
        f"{number(tick)}</text>"
        for tick in ticks(low, high)
    )
    axis = "".join(
        f'<text class="tick" x="{x(epoch):.1f}" y="{bottom + 18}" text-anchor="middle">'
        f"{epoch}</text>"
        for epoch in _epoch_ticks(last_epoch)
    )
    lines = "".join(
        _line(curve, [(x(e), y(v), e, v) for e, v in zip(curve.epochs, curve.values, strict=True)])
        for curve in curves
    )
    words = html.escape(f"{title} of {len(curves)} runs by epoch")
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} '
        f'{_HEIGHT}" role="img" aria-label="{words}">{grid}{axis}<text class="tick" '
        f'x="{(_LEFT + right) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">epoch</text>'
        f"{lines}</svg></figure>"
    )


def _line(curve: Curve, points: Sequence[tuple[float, float, int, float]]) -> str:
    """Return a curve's path and its points; values that are not finite interrupt it."""
    commands, is_drawing = [], False
    for x, y, _, value in points:
        if math.isfinite(value):
            commands.append(f"{'L' if is_drawing else 'M'}{x:.1f} {y:.1f}")
        is_drawing = math.isfinite(value)
    radius = 3 if len(points) <= _MARKED_POINTS else 1.2
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{html.escape(curve.label)}, epoch '
        f"{epoch}: {number(value)}</title></circle>"
        for x, y, epoch, value in points
        if math.isfinite(value)
    )
    return (
        f'<g class="curve c{curve.colour}" data-run="{html.escape(curve.label)}">'
        f'<path d="{"".join(commands)}"/>{marks}</g>'
    )


def _epoch_ticks(last: int) -> list[int]:
    if last <= 1:
        return [1]
    step = max(1, math.ceil((last - 1) / 8))
    return list(range(1, last + 1, step))

"""Runs side by side: a table for the terminal, a page with curves for the browser."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cli.runs.catalogue import read_metrics, read_settings
from spark_dl.cli.runs.chart import Curve, line_chart, value_range
from spark_dl.cli.runs.text import duration, number, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from spark_dl.cli.runs.catalogue import Entry, Metric

__all__ = ["Compared", "compare_page", "compare_table", "load"]

#: Settings that differ in any two runs and tell nothing.
_OWN_NAMES: Final = frozenset({"run_id"})
_COLOURS: Final = 8
_ABSENT: Final = "–"  # noqa: RUF001 - the dash of a table's empty cell


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One run with what is compared.

    Attributes:
        run_id: its name.
        state: its state.
        took: how long, as text.
        curves: its metrics by name.
        settings: its `job.yaml`, dotted keys.
    """

    run_id: str
    state: str
    took: str
    curves: Mapping[str, Metric]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def last(self, name: str) -> float | None:
        """Return the last value of a metric."""
        curve = self.curves.get(name)
        return curve.values[-1] if curve and curve.values else None


def load(entries: Sequence[Entry], *, now: datetime) -> list[Compared]:
    """Read what is compared of some runs."""
    return [
        Compared(
            run_id=entry.run_id,
            state=entry.state(now),
            took=duration(entry.duration(now)),
            curves=read_metrics(entry),
            settings=read_settings(entry),
        )
        for entry in entries
    ]


def compare_table(runs: Sequence[Compared]) -> str:
    """Return a column a run: state, last metrics, and the settings that differ."""
    rows = [[name, *cells] for name, cells in _rows(runs)]
    return table(["", *(run.run_id for run in runs)], rows)


def compare_page(runs: Sequence[Compared]) -> str:
    """Return one HTML page that needs nothing but itself."""
    style = resources.files(__package__).joinpath("compare.css").read_text(encoding="utf-8")
    script = resources.files(__package__).joinpath("compare.js").read_text(encoding="utf-8")
    legend = "".join(
        f'<button type="button" aria-pressed="true" class="c{n % _COLOURS}" '
        f'data-run="{html.escape(run.run_id)}"><i></i>{html.escape(run.run_id)}'
        f"<small>{html.escape(run.state)}, {html.escape(run.took)}</small></button>"
        for n, run in enumerate(runs)
    )
    names = [run.run_id for run in runs]
    title = f"{len(runs)} runs compared"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="icon" href="data:,"><style>{style}</style></head>'
        f'<body><main><h1>{title}</h1><nav aria-label="runs">{legend}</nav>'
        f"{_charts(runs)}<section><h2>Results and what differs</h2>"
        f'<div class="wide"><table>{_html_row("th", "", names)}'
        + "".join(_html_row("td", name, cells) for name, cells in _rows(runs))
        + f"</table></div></section></main><script>{script}</script></body></html>\n"
    )


def _rows(runs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    rows = [("state", [run.state for run in runs]), ("took", [run.took for run in runs])]
    epochs = [max((len(curve.values) for curve in run.curves.values()), default=0) for run in runs]
    rows.append(("epochs", [str(count) for count in epochs]))
    for name in _metric_names(runs):
        rows.append((name, [number(run.last(name)) for run in runs]))
        if name.endswith("loss"):
            rows.append((f"lowest {name}", [_lowest(run.curves.get(name)) for run in runs]))
    return rows + _differences(runs)


def _lowest(curve: Metric | None) -> str:
    finite = (
        [
            (value, epoch)
            for value, epoch in zip(curve.values, curve.epochs, strict=True)
            if math.isfinite(value)
        ]
        if curve
        else []
    )
    if not finite:
        return "-"
    value, epoch = min(finite)
    return f"{number(value)} (epoch {epoch})"


def _differences(runs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """Return the settings that are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = []
    for key in keys:
        cells = [_setting(run.settings, key) for run in runs]
        if key not in _OWN_NAMES and len(set(cells)) > 1:
            rows.append((key, cells))
    return rows


def _setting(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return _ABSENT
    value = settings[key]
    return "null" if value is None else str(value)


def _metric_names(runs: Sequence[Compared]) -> list[str]:
    names = {name for run in runs for name in run.curves}
    return sorted(names, key=lambda name: (name.removeprefix("val_"), name))


def _charts(runs: Sequence[Compared]) -> str:
    """Return a row a metric: training on the left, validation on the right, one scale for both."""
    bases = dict.fromkeys(name.removeprefix("val_") for name in _metric_names(runs))
    parts = []
    for base in bases:
        pair = {f"{base}, training": _curves(runs, base)}
        pair[f"{base}, validation"] = _curves(runs, f"val_{base}")
        drawn = [curve for curves in pair.values() for curve in curves]
        last = max((curve.epochs[-1] for curve in drawn), default=1)
        figures = "".join(
            line_chart(title, curves, span=value_range(drawn), last_epoch=last)
            for title, curves in pair.items()
            if curves
        )
        parts.append(f'<section><h2>{html.escape(base)}</h2><div class="pair">{figures}</div>')
        parts.append("</section>")
    return "".join(parts) or "<section><p>No run has finished an epoch yet.</p></section>"


def _curves(runs: Sequence[Compared], name: str) -> list[Curve]:
    return [
        Curve(
            label=run.run_id,
            colour=n % _COLOURS,
            epochs=run.curves[name].epochs,
            values=run.curves[name].values,
        )
        for n, run in enumerate(runs)
        if name in run.curves
    ]


def _html_row(kind: str, name: str, cells: Sequence[str]) -> str:
    filled = "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells)
    return f'<tr><th scope="row">{html.escape(name)}</th>{filled}</tr>'

"""The demo's report: one HTML file with everything in it, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

# distinct also without colour vision, 4.5:1 on white
TRAIN, VALIDATION, INK = "#0b6bcb", "#b3541e", "#1f2933"
SHOWN_MISTAKES = 12

STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #52606d; --line: #d9e2ec; --wash: #f5f7fa; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 0 0 .75rem; }
p.lead { color: var(--soft); margin: 0 0 2rem; max-width: 46rem; }
section { background: #fff; border: 1px solid var(--line); border-radius: .6rem;
  padding: 1.4rem 1.5rem; margin: 0 0 1.4rem; }
.tiles { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr));
  margin: 0 0 1.4rem; padding: 0; }
.tiles div { background: #fff; border: 1px solid var(--line); border-radius: .6rem;
  padding: 1rem 1.2rem; }
.tiles dt { color: var(--soft); font-size: .88rem; }
.tiles dd { margin: 0; font-size: 1.6rem; font-weight: 650; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
.square svg { max-width: 34rem; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: .6rem; }
table { border-collapse: collapse; width: 100%; font-size: .94rem; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-top: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
tr:first-child > * { border-top: 0; }
th { font-weight: 600; white-space: nowrap; width: 1%; padding-right: 2rem; }
"""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the report shows.

    Attributes:
        history: values of each epoch by metric, validation metrics with the prefix ``val_``.
        labels: int ``[rows]``, the true digits of the test rows.
        predictions: int ``[rows]``, the digits that the model says.
        images: float ``[rows, 8, 8]``, 0 is paper and 1 is ink.
        tiles: the few figures that matter most, by name.
        facts: everything else about the run, by name.
    """

    history: Mapping[str, Sequence[float]]
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    images: npt.NDArray[np.float64]
    tiles: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)


def render(data: ReportData) -> str:
    """Return the report as HTML."""
    matrix = confusion(data.labels, data.predictions)
    wrong = np.flatnonzero(data.labels != data.predictions)
    tiles = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in data.tiles.items()
    )
    facts = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
        for name, value in data.facts.items()
    )
    curves = _figure(
        _curves(data.history),
        "curves",
        "Loss and accuracy after each epoch, on the training rows and on the validation rows.",
        _curves_in_words(data.history),
    )
    square = _figure(
        _matrix(matrix),
        "confusion",
        "Rows are the digits written, columns the digits that the model read; "
        "everything beside the diagonal is a mistake.",
        f"Confusion matrix of {matrix.sum()} test rows, {np.trace(matrix)} of them on the diagonal",
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>spark_dl demo: handwritten digits</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Handwritten digits, from table to table</h1>
<p class="lead">A Delta table of images, 8&times;8 pixels each, became TFRecord shards. A TensorFlow
cluster on Spark's executors trained a small convolutional network on them, and its predictions went
back into a Delta table.</p>
<dl class="tiles">{tiles}</dl>
<section><h2>Learning curves</h2>{curves}</section>
<section class="square"><h2>Confusion matrix</h2>{square}</section>
<section><h2>Misread digits</h2>{_mistakes_part(data, wrong)}</section>
<section><h2>This run</h2><table>{facts}</table></section>
</main>
</body>
</html>
"""


def confusion(
    labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return how often digit i was read as j, int ``[10, 10]``."""
    matrix = np.zeros((10, 10), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def _figure(figure: Figure, name: str, caption: str, words: str) -> str:
    text = io.StringIO()
    # one salt a figure: their ids must differ within the page, and be the same in the next report
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for kind in ('id="', 'href="#', "url(#"):
        svg = svg.replace(kind, f"{kind}{name}-")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(words)}"', 1)
    return f'<figure id="{name}">{svg}<figcaption>{html.escape(caption)}</figcaption></figure>'


def _curves(history: Mapping[str, Sequence[float]]) -> Figure:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, label, colour in (
            (metric, "training", TRAIN),
            (f"val_{metric}", "validation", VALIDATION),
        ):
            values = history.get(name, ())
            epochs = range(1, len(values) + 1)
            line = "-" if label == "training" else "--"
            axes.plot(
                epochs, values, line, color=colour, label=label, lw=2, marker="o", ms=3.5, gid=name
            )
        axes.set_title(metric.capitalize(), loc="left", color=INK, fontsize=12, fontweight="bold")
        axes.set_xlabel("epoch", color=INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color="#e4e9ef")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def _curves_in_words(history: Mapping[str, Sequence[float]]) -> str:
    ends = [
        f"{name.replace('val_', 'validation ')} from {values[0]:.3f} to {values[-1]:.3f}"
        for name, values in history.items()
        if values
    ]
    return "Learning curves: " + ", ".join(ends)


def _matrix(matrix: npt.NDArray[np.int64]) -> Figure:
    figure = Figure(figsize=(5.6, 5.6), layout="constrained")
    axes = figure.subplots()
    # a few mistakes must not vanish beside the many hits
    axes.imshow(np.sqrt(matrix), cmap="Blues", vmin=0)
    dark = np.sqrt(matrix.max(initial=1)) * 0.6
    for written, read in np.ndindex(matrix.shape):
        count = matrix[written, read]
        if count:
            colour = "white" if np.sqrt(count) > dark else INK
            weight = "normal" if written == read else "bold"
            axes.text(
                read, written, str(count), ha="center", va="center", color=colour, fontweight=weight
            )
    axes.set(xticks=range(10), yticks=range(10), xlabel="read by the model", ylabel="written")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _mistakes_part(data: ReportData, wrong: npt.NDArray[np.int64]) -> str:
    if not len(wrong):
        return "<p>None: every digit of the test rows was read correctly.</p>"
    shown = wrong[:SHOWN_MISTAKES]
    figure = Figure(figsize=(10, 1.9 * -(-len(shown) // 6)), layout="constrained")
    for place, row in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // 6), 6, place + 1)
        axes.imshow(data.images[row], cmap="gray_r", vmin=0, vmax=1)
        title = f"{data.labels[row]} read as {data.predictions[row]}"
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_axis_off()
    pairs = ", ".join(f"{data.labels[row]} as {data.predictions[row]}" for row in shown)
    caption = f"{len(shown)} of the {len(wrong)} test rows that the model read wrongly."
    return _figure(figure, "mistakes", caption, f"Digits read wrongly: {pairs}")

"""The page of an evaluation: one HTML file that holds everything in itself.

Pure.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from spark_dl.inference.figures import Confusion, Evaluation

__all__ = ["html_report"]

#: A larger matrix is no picture any more: then only the commonest confusions are listed.
_MOST_CLASSES: Final = 40
_LISTED: Final = 30

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .6rem; text-align: right; border: 1px solid #8884; }
th { font-weight: 600; }
td.right { background: rgb(40 140 80 / var(--part)); }
td.wrong { background: rgb(210 70 50 / var(--part)); }
caption { caption-side: bottom; text-align: left; opacity: .7; }
div { overflow-x: auto; }
"""


def html_report(result: Evaluation) -> str:
    """Return the page.

    Args:
        result: the evaluation.
    """
    title = f"Evaluation of {result.run_id or result.model_path}"
    metrics = "".join(
        f"<tr><th>{escape(name)}</th><td>{value:.6g}</td></tr>"
        for name, value in result.metrics.items()
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{result.rows} rows, model {escape(result.model_path)}</p>",
        f"<table>{metrics}</table>" if metrics else "",
        _confusion(result.confusion) if result.confusion else "",
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _confusion(confusion: Confusion) -> str:
    heading = f"<h2>Confusion matrix, accuracy {confusion.accuracy:.4f}</h2>"
    matrix = _matrix(confusion) if len(confusion.labels) <= _MOST_CLASSES else ""
    return heading + matrix + _commonest(confusion)


def _matrix(confusion: Confusion) -> str:
    head = "".join(f"<th>{escape(label)}</th>" for label in confusion.labels)
    rows = []
    for index, (label, counts) in enumerate(zip(confusion.labels, confusion.counts, strict=True)):
        total = max(1, sum(counts))
        cells = "".join(
            f'<td class="{"right" if place == index else "wrong"}" '
            f'style="--part: {count / total:.3f}">{count}</td>'
            for place, count in enumerate(counts)
        )
        rows.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
    caption = "<caption>a row for each true class, a column for each predicted one</caption>"
    return f"<div><table>{caption}<tr><th></th>{head}</tr>{''.join(rows)}</table></div>"


def _commonest(confusion: Confusion) -> str:
    """Return the list of the commonest mistakes."""
    wrong = [
        (count, confusion.labels[true], confusion.labels[guess])
        for true, counts in enumerate(confusion.counts)
        for guess, count in enumerate(counts)
        if count and true != guess
    ]
    if not wrong:
        return "<p>No row was taken for another class.</p>"
    rows = "".join(
        f"<tr><td>{count}</td><th>{escape(true)}</th><th>{escape(guess)}</th></tr>"
        for count, true, guess in sorted(wrong, key=lambda one: -one[0])[:_LISTED]
    )
    return (
        "<h2>Commonest mistakes</h2><table><tr><th>rows</th><th>true</th><th>predicted</th></tr>"
        f"{rows}</table>"
    )

"""The demo's report: one file that says everything, in words too."""

from __future__ import annotations

import html.parser

import numpy as np


class Outline(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        self.links += [found[key] for key in ("src", "href", "xlink:href") if key in found]
        if "id" in found:
            self.ids.append(found["id"])


def _data(report, predictions=None, **facts):
    labels = np.arange(30) % 10
    history = {"loss": [1.0, 0.5], "accuracy": [0.5, 0.9], "val_loss": [1.1, 0.6]}
    return report.ReportData(
        history=history,
        labels=labels,
        predictions=labels if predictions is None else predictions,
        images=np.zeros((30, 8, 8)),
        tiles={"test accuracy": "100%"},
        facts=facts,
    )


def test_confusion_counts_every_row(report):
    matrix = report.confusion(np.array([0, 0, 9, 9]), np.array([0, 1, 9, 9]))
    assert matrix.sum() == 4
    assert matrix[0, 1] == 1
    assert matrix[9, 9] == 2


def test_the_report_is_one_file_that_loads_nothing(report):
    text = report.render(_data(report, run="<script>alert(1)</script>"))
    outline = Outline()
    outline.feed(text)
    assert all(link.startswith(("#", "data:")) for link in outline.links)
    assert not [tag for tag, _ in outline.tags if tag == "script"]
    assert len(outline.ids) == len(set(outline.ids))
    assert "&lt;script&gt;" in text


def test_every_picture_is_told_in_words(report):
    predictions = np.arange(30) % 10
    predictions[4] = 7
    outline = Outline()
    outline.feed(report.render(_data(report, predictions)))
    words = [attrs.get("aria-label") for tag, attrs in outline.tags if tag == "svg"]
    assert words == [
        (
            "Learning curves: loss from 1.000 to 0.500, accuracy from 0.500 to 0.900, "
            "validation loss from 1.100 to 0.600"
        ),
        "Confusion matrix of 30 test rows, 29 of them on the diagonal",
        "Digits read wrongly: 4 as 7",
    ]


def test_without_mistakes_the_report_says_so(report):
    assert "every digit of the test rows was read correctly" in report.render(_data(report))


def test_the_same_run_makes_the_same_report(report):
    assert report.render(_data(report)) == report.render(_data(report))

"""The confusion matrix and the page of an evaluation; no Spark."""

from __future__ import annotations

import pytest

from spark_dl.errors import DataError
from spark_dl.inference.figures import Confusion, Evaluation, confusion_of
from spark_dl.pipeline.report import html_report


def pairs(*counts):
    return [{"true": true, "guess": guess, "count": n} for true, guess, n in counts]


def test_pairs_become_a_matrix():
    found = confusion_of(
        pairs((0, 0, 3), (1, 0, 1), (1, 1, 4), (2, 0, 2)), 3, ("ant", "bee", "cat")
    )
    assert found.labels == ("ant", "bee", "cat")
    assert found.counts == ((3, 0, 0), (1, 4, 0), (2, 0, 0))
    assert found.accuracy == pytest.approx(0.7)
    assert confusion_of([], 2, None) == Confusion(labels=("0", "1"), counts=((0, 0), (0, 0)))


@pytest.mark.parametrize("strange", [None, -1, 2])
def test_a_label_that_is_no_class_is_named(strange):
    with pytest.raises(DataError, match=f"the label holds {strange}, the model tells .* 0 to 1"):
        confusion_of(pairs((0, 0, 3), (strange, 0, 1)), 2, None)


def result(confusion=None, **metrics):
    return Evaluation(
        rows=10, metrics=metrics, confusion=confusion, model_path="/m<1>", run_id=None
    )


def test_the_page_tells_all_and_needs_nothing():
    confusion = Confusion(labels=("a<b", "c"), counts=((4, 1), (0, 5)))
    page = html_report(result(confusion, loss=0.25, accuracy=0.9))
    assert "<th>loss</th><td>0.25</td>" in page
    assert "/m&lt;1&gt;" in page
    assert '<td class="right" style="--part: 0.800">4</td>' in page
    assert '<td class="wrong" style="--part: 0.200">1</td>' in page
    assert "<td>1</td><th>a&lt;b</th><th>c</th>" in page
    assert "http" not in page


def test_a_matrix_too_large_to_read_is_a_list():
    size = 60
    counts = [[0] * size for _ in range(size)]
    counts[7][9] = 3
    labels = tuple(f"label {i}" for i in range(size))
    page = html_report(result(Confusion(labels=labels, counts=tuple(map(tuple, counts)))))
    assert "label 5<" not in page
    assert "<td>3</td><th>label 7</th><th>label 9</th>" in page


def test_a_regression_has_no_matrix():
    page = html_report(result(mean_squared_error=1.5))
    assert "Confusion" not in page
    assert "1.5" in page

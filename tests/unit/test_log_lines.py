"""A worker that prints without end: the driver gets what it can read, and hears of the rest."""

from __future__ import annotations

from spark_dl.cluster.lines import INTERVAL_S, LINES, LogLines


def test_lines_come_in_bundles_at_intervals():
    lines = LogLines()
    lines.add("a")
    assert lines.take(now=100.0) == ["a"]
    lines.add("b")
    assert lines.take(now=100.0 + INTERVAL_S / 2) == []
    lines.add("c")
    assert lines.take(now=100.0 + INTERVAL_S) == ["b", "c"]
    assert lines.take(now=200.0) == [], "nothing is no bundle"


def test_a_flood_is_cut_and_counted():
    lines = LogLines()
    sent = []
    for number in range(10 * LINES):  # all within one interval
        lines.add(str(number))
        sent += lines.take(now=100.0)
    sent += lines.take(now=100.0 + INTERVAL_S)
    assert sent[: LINES + 1] == [str(number) for number in range(LINES + 1)]
    assert len(sent) == LINES + 2
    assert sent[-1] == f"({9 * LINES - 1} more lines within 0.5 s are left out)"
    lines.add("later")
    assert lines.take(now=200.0) == ["later"], "the count begins anew"


def test_the_last_ones_wait_for_no_interval():
    lines = LogLines()
    lines.add("a")
    lines.take(now=100.0)
    lines.add("last")
    assert lines.take(now=100.0, in_any_case=True) == ["last"]

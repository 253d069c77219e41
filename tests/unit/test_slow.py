"""Who is much slower than the others, and what is said of it."""

from __future__ import annotations

import logging

from spark_dl.cluster.slow import SlowWatch, slowest
from spark_dl.cluster.status import RankPhase, WorkerStatus
from spark_dl.training.pulse import Pace


def statuses(*own_s):
    return [
        WorkerStatus(rank=rank, host=f"h{rank}", phase=RankPhase.RUNNING, own_s=seconds)
        for rank, seconds in enumerate(own_s)
    ]


def test_one_stands_out():
    status, median = slowest(statuses(0.1, 0.5, 0.2))
    assert (status.rank, round(median, 3)) == (1, 0.15)
    status, median = slowest(statuses(0.1, 0.25))
    assert (status.rank, median) == (1, 0.1)


def test_nobody_stands_out():
    assert slowest(statuses(0.1, 0.19, 0.11)) is None, "not twice as slow"
    assert slowest(statuses(0.001, 0.009)) is None, "nine times as slow, of steps that cost nothing"
    assert slowest(statuses(0.1, None, 0.9)) is None, "one has said nothing yet"
    assert slowest(statuses(0.9)) is None
    assert slowest(statuses(0.5, 0.5, 0.1)) is None, "two of three are no exception"


def test_it_is_named_once_while_it_lasts(caplog):
    caplog.set_level(logging.WARNING)
    asked = []
    watch = SlowWatch(after_s=10, ask=lambda: asked.append(1))
    ranks = statuses(0.1, 0.5)
    watch.look(ranks, 0)
    watch.look(statuses(0.1, 0.1), 5)
    watch.look(ranks, 6)
    watch.look(ranks, 15)
    assert not asked, "it was fast in between"
    watch.look(ranks, 16)
    ranks[1].stack = ("File model.py, line 3",)
    for now in (17, 19, 20, 90):
        watch.look(ranks, now)
    assert len(asked) == 1
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(
        "rank 1 on h1 is slow: its own part of a step takes 0.5 s, the other ranks' 0.1 s (median)"
    )
    assert said.endswith("File model.py, line 3")


def test_none_is_for_ever_and_a_start_is_no_step():
    asked = []
    SlowWatch(after_s=None, ask=lambda: asked.append(1)).look(statuses(0.1, 9), 1e9)
    starting = statuses(0.1, 9)
    starting[0].phase = RankPhase.CONNECTED
    watch = SlowWatch(after_s=1, ask=lambda: asked.append(1))
    watch.look(starting, 0)
    watch.look(starting, 100)
    assert not asked


def test_the_wait_for_others_and_what_is_between_steps_are_no_part_of_a_step():
    summed = [0.0]
    pace = Pace(lambda: summed[0])
    pace.begin(100.0)
    summed[0] += 0.75
    pace.end(101.0)
    assert pace.own_s == 0.25
    pace.begin(101.5)  # a callback took half a second: this rank's own doing
    pace.end(102.25)
    assert pace.own_s == 0.25 + 0.1 * (1.25 - 0.25)
    before = pace.own_s
    pace.pause()
    pace.begin(500.0)
    pace.end(500.0 + before)
    assert abs(pace.own_s - before) < 1e-9


def test_without_measured_sums_nothing_is_known():
    pace = Pace(lambda: None)
    pace.begin(1.0)
    pace.end(2.0)
    assert pace.own_s is None

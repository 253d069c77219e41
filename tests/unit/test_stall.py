"""Who stands still, and what is said of it."""

from __future__ import annotations

import logging

import pytest

from spark_dl.cluster.stall import StallWatch, stalled
from spark_dl.cluster.status import RankPhase, WorkerStatus
from spark_dl.errors import TrainingFailedError


def status(rank, *, progressed=0.0, step=None, phase=RankPhase.RUNNING, **more):
    return WorkerStatus(
        rank=rank, host=f"h{rank}", phase=phase, progressed=progressed, step=step, **more
    )


def ranks(found):
    return [status.rank for status in found]


def test_nobody_stalls_while_one_goes_on():
    assert stalled([status(0, progressed=9), status(1)], now=12, after_s=10) == ()
    assert stalled([status(0, phase=RankPhase.CONNECTED)], now=99, after_s=10) == ()


def test_those_behind_hold_the_others_up():
    assert ranks(stalled([status(0, step=7), status(1, step=6)], now=12, after_s=10)) == [1]
    assert ranks(stalled([status(0, step=7), status(1)], now=12, after_s=10)) == [1]
    assert ranks(stalled([status(0, step=7), status(1, step=7)], now=12, after_s=10)) == [0, 1]
    done = [status(0, phase=RankPhase.DONE), status(1, step=6)]
    assert ranks(stalled(done, now=12, after_s=10)) == [1]


def watch(*, is_fatal, after_s=10.0, timeout_s=None):
    asked = []
    watching = StallWatch(
        after_s=after_s, timeout_s=timeout_s, is_fatal=is_fatal, ask=lambda: asked.append(1)
    )
    return watching, asked


def test_stacks_are_asked_for_once_and_told_once(caplog):
    caplog.set_level(logging.WARNING)
    watching, asked = watch(is_fatal=False)
    both = [status(0, step=7), status(1, step=7, doing="training")]
    watching.look(both, 5)
    assert not asked
    for now in (11, 12):
        watching.look(both, now)
    assert len(asked) == 1
    both[1].process_state, both[1].stack = "T", ("File x, line 3",)
    for now in (15, 16):
        watching.look(both, now)
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(
        "[rank 1 on h1] Stalled: no progress for 10 s after step 7 while training"
    )
    assert "stopped by a signal" in said
    assert "File x, line 3" in said
    both[0].progressed = both[1].progressed = 20
    watching.look(both, 21)
    watching.look(both, 31)
    assert len(asked) == 2, "a second stall is a new one"


def test_a_stall_ends_the_try_where_that_is_wanted():
    watching, _ = watch(is_fatal=True)
    watching.look([status(0)], 11)
    with pytest.raises(TrainingFailedError, match="before its first step") as caught:
        watching.look([status(0)], 15)
    assert caught.value.retryable


@pytest.mark.parametrize("after_s", [10.0, None, 90.0])
def test_no_stall_lasts_for_ever(after_s, caplog):
    watching, asked = watch(is_fatal=False, after_s=after_s, timeout_s=60)
    stuck = status(1, step=6, doing="training", stack=("File x, line 3",))
    for now in (11, 14, 59, 61, 63):
        watching.look([status(0, step=7), stuck], now)
    assert len(caplog.records) == (after_s == 10.0)
    with pytest.raises(TrainingFailedError) as caught:
        watching.look([status(0, step=7), stuck], 64)
    said = str(caught.value)
    assert said.startswith(
        "[rank 1 on h1] Stalled: no progress for 60 s after step 6 while training "
        "(cluster.stall_timeout_s)"
    )
    assert "File x, line 3" in said
    assert caught.value.retryable
    assert len(asked) == 1 + (after_s == 10.0)


def test_progress_at_the_last_moment_counts():
    watching, asked = watch(is_fatal=False, after_s=None, timeout_s=60)
    both = [status(0), status(1)]
    watching.look(both, 61)
    both[1].progressed = 62
    for now in (64, 121):
        watching.look(both, now)
    assert len(asked) == 1


def test_none_is_for_ever():
    watching, asked = watch(is_fatal=True, after_s=None)
    watching.look([status(0)], 1e9)
    assert not asked

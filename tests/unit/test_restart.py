"""When a run that lost its workers is started again, and when that would not help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spark_dl.cluster.restart import Mishap, Raise, RestartPolicy, Retry, judge
from spark_dl.errors import (
    CancelledError,
    ClusterError,
    RankFailure,
    ResourceError,
    TimeoutExpiredError,
    TrainingFailedError,
)

POLICY = RestartPolicy(max_restarts=5, per_hour=4, backoff_s=1, backoff_max_s=5)


def failed(error="WorkerLost", *, retryable=True, **more):
    failure = RankFailure(rank=1, host="h", error=error, retryable=retryable, **more)
    return TrainingFailedError.from_failures([failure])


def mishaps(*errors_and_steps, apart_s=1.0):
    return [
        Mishap(error=error, step=step, time=number * apart_s)
        for number, (error, step) in enumerate(errors_and_steps)
    ]


@pytest.mark.parametrize("error", [failed(), failed("killed by SIGSEGV"), ClusterError("gone")])
def test_what_may_pass_is_tried_again(error):
    assert judge(mishaps((error, 7)), POLICY) == Retry(after_s=1)


@pytest.mark.parametrize(
    "error",
    [
        failed("ValueError", retryable=False),
        CancelledError("somebody"),
        KeyError("a defect"),
        ResourceError("no slots"),
        TimeoutExpiredError("the first start"),
    ],
)
def test_what_would_happen_again_is_not(error):
    assert judge(mishaps((error, 7)), POLICY) == Raise()


def test_ranks_that_stood_still_are_started_again_where_that_is_wanted():
    stalled = mishaps((failed("Stalled"), 7))
    off = Raise(why="cluster.restart_on_stall is off")
    assert judge(stalled, POLICY) == off
    assert not off.is_final, "somebody else may"
    assert judge(stalled, replace(POLICY, on_stall=True)) == Retry(after_s=1)
    assert judge(mishaps((failed(), 7)), POLICY) == Retry(after_s=1)


def test_no_restart_where_none_is_wanted():
    assert judge(mishaps((failed(), 7)), RestartPolicy(max_restarts=0)) == Raise()


def test_the_number_of_restarts_is_limited():
    many = mishaps(*[(failed(), step) for step in range(1, 7)], apart_s=3600)
    assert isinstance(judge(many[:5], POLICY), Retry)
    verdict = judge(many, POLICY)
    assert verdict == Raise(why="it was restarted 5 times (cluster.max_restarts)")


def test_so_is_their_number_within_an_hour():
    quick = mishaps(*[(failed(), step) for step in range(1, 6)], apart_s=60)
    assert isinstance(judge(quick[:4], POLICY), Retry)
    assert judge(quick, POLICY) == Raise(
        why="it was restarted 4 times within an hour (cluster.restarts_per_hour)"
    )


def test_waits_double_while_nothing_is_gained():
    waits = []
    policy = RestartPolicy(max_restarts=9, backoff_s=1, backoff_max_s=3)
    for fruitless in range(3):
        past = mishaps((failed(), 3), *[(failed(), None)] * fruitless)
        waits.append(judge(past, policy).after_s)
    assert waits == [1, 2, 3]


def test_three_tries_without_a_step_are_no_bad_luck():
    verdict = judge(mishaps(*[(failed(), None)] * 3), POLICY)
    assert verdict == Raise(why="3 tries in a row ended before their first step", is_final=True)
    assert isinstance(
        judge(mishaps((failed(), None), (failed(), 1), (failed(), None)), POLICY), Retry
    )


@pytest.mark.parametrize("error", ["killed by SIGSEGV", "killed by SIGKILL"])
def test_the_same_at_the_same_step_twice_is_a_cause(error):
    verdict = judge(mishaps((failed(error), 7), (failed(error), 7)), POLICY)
    assert verdict == Raise(why="the same happened twice after step 7", is_final=True)
    assert isinstance(judge(mishaps((failed(error), 7), (failed(error), 8)), POLICY), Retry)
    assert isinstance(judge(mishaps((failed(error), 7), (failed("other"), 7)), POLICY), Retry)


def test_hosts_may_be_lost_at_one_step_twice():
    assert isinstance(judge(mishaps((failed(), 7), (failed(), 7)), POLICY), Retry)
    killed = failed("killed by SIGKILL")
    assert isinstance(judge(mishaps((killed, None), (killed, None)), POLICY), Retry)


def test_memory_may_run_out_once():
    short = failed("WorkerLost", is_of_memory=True)
    assert isinstance(judge(mishaps((short, 7)), POLICY), Retry)
    verdict = judge(mishaps((short, 7), (failed(), 9), (short, 20)), POLICY)
    assert verdict == Raise(why="a worker ran out of memory a second time", is_final=True)


def test_the_error_says_why_it_was_not_restarted():
    error = failed(message="gone").given_up("it was enough", is_final=True)
    assert str(error).startswith("[rank 1 on h] WorkerLost: gone")
    assert str(error).endswith("not restarted: it was enough")
    assert not error.retryable
    assert failed().given_up("later perhaps", is_final=False).retryable

"""How an Airflow task ends, from what its job left behind."""

from __future__ import annotations

import doctest

import pytest

from spark_dl.airflow import Outcome, judge, outcome, task_run_id
from spark_dl.errors import ConfigError, WorkerLostError
from spark_dl.storage import JobState, JobStatus, RunPaths


def status(state=JobState.RUNNING, **update):
    return JobStatus(job="train", id="r", status=state, started="then", **update)


def failed(error):
    return status().failed(error)


GONE = failed(WorkerLostError("host gone"))
WRONG = failed(ConfigError("no such column"))


@pytest.mark.parametrize(
    ("before", "after", "is_ok", "code", "expected"),
    [
        # client mode: exit code and status agree
        (None, status(JobState.SUCCEEDED), True, 0, Outcome.DONE),
        (None, WRONG, False, 2, Outcome.FAIL),
        (None, GONE, False, 75, Outcome.RETRY),
        # YARN, cluster mode: spark-submit ends with 1 whatever happened
        (None, WRONG, False, 1, Outcome.FAIL),
        (None, GONE, False, 1, Outcome.RETRY),
        (None, status(JobState.CANCELLED), False, 1, Outcome.FAIL),
        # this try wrote nothing: the status is the try's before
        (GONE, GONE, False, 2, Outcome.FAIL),
        (WRONG, WRONG, False, 75, Outcome.RETRY),
        (None, None, False, 1, Outcome.RETRY),
        (None, None, False, None, Outcome.RETRY),
        (None, None, False, 143, Outcome.FAIL),
        (None, None, True, 0, Outcome.DONE),
        # the same run again: nothing was trained, the status is as it was
        (status(JobState.SUCCEEDED), status(JobState.SUCCEEDED), True, 0, Outcome.DONE),
        # the driver was killed, or spark-submit did not wait for it
        (None, status(), False, 137, Outcome.RETRY),
        (None, status(), True, 0, Outcome.FAIL),
    ],
)
def test_a_task_ends_as_its_job_did(before, after, is_ok, code, expected):
    verdict = judge(before, after, is_ok=is_ok, exit_code=code)
    assert verdict.outcome is expected
    assert verdict.reason


def test_the_reason_is_the_jobs_own():
    assert "no such column" in judge(None, WRONG, is_ok=False, exit_code=2).reason


def test_every_run_of_a_dag_has_a_valid_id_of_its_own():
    long = "x" * 90
    names = [
        task_run_id(dag, run)
        for dag in ("digits", long)
        for run in ("manual__2026-11-25T22:00:00.123+00:00", "scheduled__2026-11-26T00:00:00+00:00")
    ]
    assert len(set(names)) == len(names)
    for name in names:
        assert RunPaths(runs="/runs", run_id=f"prepare-{name}").run_id


def test_the_examples_are_true():
    assert doctest.testmod(outcome).failed == 0

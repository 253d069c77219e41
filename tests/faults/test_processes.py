"""Processes die, one by one and together: the run goes on and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from faults.model import DEADLINE_S
from faults.processes import executor, executors, parent, strike

from spark_dl.testing import is_alive

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(400)]

BACKENDS = ["barrier", "tensorflowonspark"]


# the one that crashes below is the other child of the backend `barrier`
@pytest.mark.parametrize(("victim", "backend"), list(enumerate(BACKENDS)))
def test_a_child_is_killed(start, as_if_nothing_happened, backend, victim):
    caught = start(backend)
    strike(caught.children()[victim])
    as_if_nothing_happened(caught, caught.result())


def test_a_child_crashes(start, as_if_nothing_happened):
    caught = start()
    strike(caught.children()[1], signal.SIGSEGV)
    as_if_nothing_happened(caught, caught.result())


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_agent_is_killed(start, as_if_nothing_happened, backend):
    caught = start(backend)
    strike(parent(caught.children()[1]))
    as_if_nothing_happened(caught, caught.result())


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_executor_is_killed_and_replaced(start, as_if_nothing_happened, backend):
    caught = start(backend)
    left, victim = (executor(child) for child in caught.children())
    strike(victim)
    as_if_nothing_happened(caught, caught.result())
    now = executors(os.getpid())
    assert left in now
    assert len(now - {left, victim}) == 1


def test_both_executors_are_killed(start, as_if_nothing_happened):
    caught = start()
    for pid in {executor(child) for child in caught.children()}:
        strike(pid)
    as_if_nothing_happened(caught, caught.result())


def test_a_child_stands_still_and_is_replaced(start, as_if_nothing_happened):
    caught = start(config=impatient(restart=True))
    victim = caught.children()[1]
    strike(victim, signal.SIGSTOP)
    as_if_nothing_happened(caught, caught.result())
    assert not Path(f"/proc/{victim}").exists()


def test_no_child_stands_still_for_ever(start, as_if_nothing_happened):
    """With the settings as they are nobody starts it again: the run ends, and can go on."""
    caught = start(config={"cluster": {"stall_timeout_s": 5}})
    victim = caught.children()[1]
    strike(victim, signal.SIGSTOP)
    error = caught.fails(
        "Stalled: no progress for 5 s after step 9",
        "its process is stopped by a signal (cluster.stall_timeout_s)",
        ranks="1",
        retryable=True,
    )
    assert "not restarted: cluster.restart_on_stall is off" in str(error)
    assert error.exit_code == 75
    assert not Path(f"/proc/{victim}").exists()
    again = start()
    as_if_nothing_happened(again, again.result())


def wait_for_nobody(rank):
    if rank == 1:
        threading.Event().wait()


def test_a_callback_that_never_returns_ends_the_run(start, as_if_nothing_happened):
    caught = start(config={"cluster": {"stall_timeout_s": 5}}, act=wait_for_nobody)
    children = caught.children()
    error = caught.fails("Stalled: no progress for 5 s after step", retryable=True)
    stacks = {failure.rank: failure.traceback for failure in error.failures}
    assert "in wait_for_nobody" in stacks[1]
    assert "in wait_for_nobody" not in stacks.get(0, "")  # it waits in the next step, or behind
    assert "[rank 1 on " in str(error)
    assert not any(is_alive(pid) for pid in children)
    again = start()
    as_if_nothing_happened(again, again.result())


def test_a_slow_rank_is_named_with_its_stack(start, as_if_nothing_happened, caplog, tmp_path):
    told = tmp_path / "told"

    def oversleep(rank):
        deadline = time.monotonic() + DEADLINE_S
        while rank == 1 and not told.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    caught = start(config=impatient(restart=False), act=oversleep)
    caught.children()
    caught.go()
    warning = wait_for_warning(caplog, "Stalled")
    told.touch()
    assert "no progress for 5 s after step" in warning
    assert "in oversleep" in warning
    as_if_nothing_happened(caught, caught.result(), attempt=1)


def test_a_rank_that_slows_the_others_down_is_named(
    start, as_if_nothing_happened, caplog, tmp_path
):
    told = tmp_path / "told"

    def drag(rank):
        return lambda: 0.8 if rank == 1 and not told.exists() else 0.0

    caught = start(config={"cluster": {"slow_after_s": 1}}, act=drag)
    caught.children()
    caught.go()
    warning = wait_for_warning(caplog, "is slow")
    told.touch()
    assert warning.startswith("rank 1 on ")
    assert "in on_train_batch_end" in warning
    as_if_nothing_happened(caught, caught.result(), attempt=1)


def impatient(*, restart):
    return {"cluster": {"stall_after_s": 5, "restart_on_stall": restart}}


def wait_for_warning(caplog, mark):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for record in caplog.records:
            if mark in record.getMessage():
                return record.getMessage()
        time.sleep(0.05)
    return ""

"""The driver itself dies or is told to end: nothing stays behind, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from faults.conftest import WORKERS
from faults.jobs import TRAIN, caught_at_gate, write_job
from faults.model import DEADLINE_S, reached
from faults.processes import strike, wait_for_the_hit
from shells import INTERRUPTIBLE, plain_environ

from spark_dl.runs import finished_run
from spark_dl.storage import JobState
from spark_dl.testing import descendants

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


#: By what, with which exit code, and what the run's status then says.
ENDS = [
    (signal.SIGTERM, 128 + signal.SIGTERM, JobState.CANCELLED),
    (signal.SIGINT, 128 + signal.SIGINT, JobState.CANCELLED),
    (signal.SIGKILL, -signal.SIGKILL, JobState.RUNNING),
]


@pytest.fixture
def project(dataset, tmp_path):
    """A job's folder."""
    write_job(tmp_path, dataset, backend="tensorflowonspark")
    return tmp_path


@pytest.fixture
def drive(project):
    """Start the job as a scheduler would; it is killed at the end if it still runs."""
    started = []

    def start():
        job = [*INTERRUPTIBLE, sys.executable, str(TRAIN), "--config", "job.yaml"]
        with (project / f"log-{len(started)}").open("w") as log:
            process = subprocess.Popen(
                job, cwd=project, env=plain_environ(), stdout=subprocess.PIPE, stderr=log, text=True
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=DEADLINE_S)


def test_a_driver_that_ends_leaves_nothing_and_goes_on(project, drive, as_if_nothing_happened):
    """Told to end, interrupted and killed, one after the other; each time by the same command."""
    for attempt, (how, code, state) in enumerate(ENDS, start=1):
        driver = drive()
        caught, _ = caught_at_gate(project, driver, project / f"log-{attempt - 1}")
        assert len(descendants(driver.pid)) >= 2 * WORKERS
        strike(driver.pid, how)
        assert driver.wait(DEADLINE_S) == code
        wait_for_the_hit()
        assert (caught.status.status, caught.status.attempt) == (state, attempt)
        for rank in range(WORKERS):  # the next try waits at the gate too
            os.remove(reached(caught.folder, rank))
    caught.go()
    last = drive()
    out, _ = last.communicate(timeout=DEADLINE_S)
    assert last.returncode == 0, (project / f"log-{len(ENDS)}").read_text()[-4000:]
    assert json.loads(out.splitlines()[-1])["status"] == "succeeded"
    as_if_nothing_happened(caught, finished_run(caught.paths), attempt=len(ENDS) + 1)

"""The driver itself dies or is told to end: nothing stays behind, and the same command goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from faults.conftest import WORKERS
from faults.jobs import TRAIN, caught_at_gate, write_job
from faults.model import DEADLINE_S
from faults.processes import strike, wait_for_the_hit
from shells import INTERRUPTIBLE, plain_environ

from spark_dl.runs import finished_run
from spark_dl.storage import JobState
from spark_dl.testing import descendants

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


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


@pytest.mark.parametrize(
    ("how", "code", "state"),
    [
        (signal.SIGKILL, -signal.SIGKILL, JobState.RUNNING),
        (signal.SIGTERM, 128 + signal.SIGTERM, JobState.CANCELLED),
        (signal.SIGINT, 128 + signal.SIGINT, JobState.CANCELLED),
    ],
)
def test_a_driver_that_ends_leaves_nothing_and_goes_on(
    project, drive, as_if_nothing_happened, how, code, state
):
    first = drive()
    caught, _ = caught_at_gate(project, first, project / "log-0")
    its = descendants(first.pid)
    assert len(its) >= 2 * WORKERS
    strike(first.pid, how)
    assert first.wait(DEADLINE_S) == code
    wait_for_the_hit()
    assert caught.status.status is state
    caught.go()
    second = drive()
    out, _ = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, (project / "log-1").read_text()[-4000:]
    assert json.loads(out.splitlines()[-1])["status"] == "succeeded"
    as_if_nothing_happened(caught, finished_run(caught.paths))

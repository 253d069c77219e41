"""The driver itself dies or is told to end: nothing stays behind, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from faults import model
from faults.conftest import AT, BATCH, EPOCHS, WORKERS, Caught, settings
from faults.model import DEADLINE_S, reached
from shells import plain_environ

from spark_dl.runs import finished_run
from spark_dl.storage import JobState, RunPaths
from spark_dl.testing import descendants, is_alive

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(dataset, tmp_path):
    """A job's folder; the model waits at its gate."""
    shutil.copy(model.__file__, tmp_path / "watched_model.py")
    (tmp_path / "gate").mkdir()
    config = {
        "dataset": {"path": dataset.path, "seed": 7},
        "model": {
            "fn": "watched_model:watched",
            "params": {"folder": str(tmp_path / "gate"), "at": AT},
        },
        "cluster": {"backend": "tensorflowonspark", "num_workers": WORKERS},
        "training": {
            "epochs": EPOCHS,
            "global_batch_size": BATCH,
            "seed": 3,
            **settings()["training"],
        },
        "tensorboard": {"enabled": False},
        "runs": str(tmp_path / "runs"),
        "run_id": "run",
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.fixture
def drive(project):
    """Start the job as a scheduler would; it is killed at the end if it still runs."""
    started = []

    def start():
        job = [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", "job.yaml"]
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


def wait_for_gate(project, process):
    deadline = time.monotonic() + DEADLINE_S
    paths = [reached(str(project / "gate"), number) for number in range(WORKERS)]
    while not all(os.path.exists(path) for path in paths):
        assert process.poll() is None, (project / "log-0").read_text()[-4000:]
        assert time.monotonic() < deadline, "the workers did not reach the gate"
        time.sleep(0.05)


def wait_for_end(pids):
    deadline = time.monotonic() + 60
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)


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
    wait_for_gate(project, first)
    its = descendants(first.pid)
    assert len(its) >= 2 * WORKERS
    first.send_signal(how)
    assert first.wait(DEADLINE_S) == code
    wait_for_end(its)
    paths = RunPaths(runs=str(project / "runs"), run_id="run")
    caught = Caught(paths, str(project / "gate"), first)
    assert caught.status.status is state
    caught.go()
    second = drive()
    out, _ = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, (project / "log-1").read_text()[-4000:]
    assert json.loads(out.splitlines()[-1])["status"] == "succeeded"
    as_if_nothing_happened(caught, finished_run(paths))

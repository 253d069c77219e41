"""Whether a run directory may be tried again, and by whom."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from spark_dl.errors import ConfigError
from spark_dl.pipeline.attempts import next_attempt
from spark_dl.pipeline.presence import Presence
from spark_dl.runs import recorded
from spark_dl.storage import JobState, JobStatus, RunPaths, Storage

WAIT_S = 30


@pytest.fixture
def paths(tmp_path):
    return RunPaths(runs=str(tmp_path), run_id="r")


def put(paths, state, **heartbeat):
    os.makedirs(paths.root, exist_ok=True)
    JobStatus(job="train", id="r", status=state, attempt=3).write(paths.status)
    if heartbeat:
        Storage(paths.root).write_atomic(paths.heartbeat, json.dumps(heartbeat))


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_new_run_is_the_first_attempt(paths):
    assert next_attempt(paths) == 1


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_run_that_ended_goes_on_with_what_it_has_saved(paths, state):
    put(paths, state)
    for kept in (paths.checkpoints, paths.events):
        os.makedirs(kept)
    Storage(paths.root).write_atomic(paths.metrics, "{}\n")
    assert next_attempt(paths) == 4
    assert os.path.isdir(paths.checkpoints)
    assert os.path.isdir(paths.events)
    assert os.path.exists(paths.metrics)


def test_a_driver_that_died_on_this_host_is_known_at_once(paths):
    put(paths, JobState.RUNNING, host=socket.gethostname(), pid=dead_pid(), time="t")
    assert next_attempt(paths, silence_s=3600) == 4


def test_silence_tells_that_a_driver_elsewhere_is_dead(paths):
    put(paths, JobState.RUNNING, host="far-away", pid=1, time="t")
    assert next_attempt(paths, silence_s=0.2) == 4


def test_a_run_in_use_is_refused(paths):
    put(paths, JobState.RUNNING, host="far-away", pid=7, time="before")
    with (
        Presence(paths, look_s=0.01, beat_s=0.05),
        pytest.raises(ConfigError, match=rf"run r is in .* its driver \(pid {os.getpid()} on .*"),
    ):
        next_attempt(paths, silence_s=WAIT_S)
    assert JobStatus.read(paths.status).status is JobState.RUNNING


def lose_the_run(paths, taken):
    """Be a driver whose run another one takes over."""
    with recorded("train", paths) as record, Presence(paths, look_s=0.01, beat_s=0.01) as presence:
        record.is_owner = presence.owns_run
        waited = threading.Event()
        while not os.path.exists(paths.heartbeat):
            waited.wait(0.01)
        while presence.stop_reason() is None:
            Storage(paths.root).write_atomic(paths.heartbeat, json.dumps(taken))
            put(paths, JobState.RUNNING)
            waited.wait(0.02)
        raise InterruptedError(presence.stop_reason())


def test_a_driver_that_was_replaced_stops_and_leaves_the_run_alone(paths):
    os.makedirs(paths.root)
    taken = {"time": "t", "host": "other", "pid": 9, "token": "theirs"}
    with pytest.raises(InterruptedError, match=r"another driver \(pid 9 on other\) has taken"):
        lose_the_run(paths, taken)
    assert JobStatus.read(paths.status).attempt == 3
    assert json.loads(Storage(paths.root).read_bytes(paths.heartbeat)) == taken

"""`spark-dl tensorboard`: several runs in one board, also from storage that is not mounted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import fsspec
import pytest
from event_files import write_events
from shells import INTERRUPTIBLE

from spark_dl.cli.runs.catalogue import find
from spark_dl.cli.tensorboard import gathered
from spark_dl.monitoring.mirror import EventMirror
from spark_dl.storage import JobState, JobStatus, RunPaths

DEADLINE_S = 120


@pytest.fixture
def remote():
    """A file system that nothing has mounted."""
    fs = fsspec.filesystem("memory")
    root = f"memory://mirror-{os.getpid()}-{time.monotonic_ns()}"
    yield fs, root
    fs.rm(root, recursive=True)


def put(fs, path, data, mode="wb"):
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, mode) as file:
        file.write(data)


def test_a_mirror_fetches_what_is_new_and_begins_anew_when_a_run_did(remote, tmp_path):
    fs, root = remote
    mirror = EventMirror(f"{root}/events", str(tmp_path))
    assert mirror.update() == 0  # not there yet
    path = f"{root}/events/train/events.1"
    put(fs, path, b"first")
    assert mirror.update() == 5
    assert mirror.update() == 0
    put(fs, path, b"first and second")
    assert mirror.update() == 11
    assert (tmp_path / "train" / "events.1").read_bytes() == b"first and second"
    put(fs, path, b"new")
    assert mirror.update() == 3
    assert (tmp_path / "train" / "events.1").read_bytes() == b"new"


def test_a_mirror_goes_on_in_the_background(remote, tmp_path, monkeypatch, caplog):
    fs, root = remote
    put(fs, f"{root}/events/a", b"1")
    with EventMirror(f"{root}/events", str(tmp_path), every_s=0.01):
        assert (tmp_path / "a").read_bytes() == b"1"
        put(fs, f"{root}/events/b", b"22")
        end = time.monotonic() + DEADLINE_S
        while not ((tmp_path / "b").exists() and (tmp_path / "b").read_bytes() == b"22"):
            assert time.monotonic() < end
            threading.Event().wait(0.01)


def test_runs_on_mounted_and_on_other_storage_stand_side_by_side(remote, tmp_path):
    fs, root = remote
    entries = []
    for runs in (str(tmp_path), f"{root}/runs"):
        paths = RunPaths(runs=runs, run_id="r1" if runs == str(tmp_path) else "r2")
        JobStatus(job="train", id=paths.run_id, status=JobState.RUNNING).write(paths.status)
        entries += find(runs, [paths.run_id])
    put(fs, f"{root}/runs/r2/events/train/e", b"remote")
    (tmp_path / "r1" / "events" / "train").mkdir(parents=True)
    (tmp_path / "r1" / "events" / "train" / "e").write_bytes(b"local")
    with gathered(entries, every_s=60) as logdir:
        found = {name: Path(logdir, name, "train", "e").read_bytes() for name in os.listdir(logdir)}
    assert found == {"r1": b"local", "r2": b"remote"}
    assert not os.path.exists(logdir)
    assert (tmp_path / "r1" / "events" / "train" / "e").exists()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_verb_serves_several_runs_and_ends_cleanly(tmp_path, end):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    folders = []
    for run_id in ("r1", "r2"):
        paths = RunPaths(runs=str(tmp_path), run_id=run_id)
        JobStatus(job="train", id=run_id, status=JobState.SUCCEEDED).write(paths.status)
        folders.append(f"{paths.events}/train")
    write_events({folder: [0.5] for folder in folders})
    command = "import sys; from spark_dl.cli import main; sys.exit(main())"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [
            *(*INTERRUPTIBLE, f"TMPDIR={temporary}", sys.executable, "-c", command),
            *("tensorboard", "--runs", str(tmp_path), "--port", "0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("2 runs in TensorBoard: ")
        url = re.search(r"http://\S+", line)[0]
        deadline = time.monotonic() + DEADLINE_S
        while (runs := _runs(url)) != ["r1/train", "r2/train"]:
            assert time.monotonic() < deadline, runs
            threading.Event().wait(0.1)
    finally:
        process.send_signal(end)
        code = process.wait(DEADLINE_S)
        process.stdout.close()
    assert code == 0
    with pytest.raises(OSError, match="refused"):
        _runs(url)
    assert not list(temporary.iterdir())


def _runs(url):
    with urllib.request.urlopen(f"{url}data/runs", timeout=DEADLINE_S) as answer:  # noqa: S310
        return sorted(json.load(answer))

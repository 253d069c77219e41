"""A cluster, a dataset, and a run that a test can catch at a step."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
from faults.model import DEADLINE_S, reached, watched
from faults.processes import is_child, wait_for_the_hit

import spark_dl
from spark_dl.errors import TrainingFailedError
from spark_dl.runs import finished_run
from spark_dl.shards.dataset import Dataset
from spark_dl.storage import JobState, JobStatus, RunPaths
from spark_dl.testing import descendants

ROWS, BATCH, EPOCHS, AT = 400, 20, 2, 9
WORKERS = 2


#: Ranks whose errors come more than 0.3 s apart are not told together.
SOME_RANKS = "0|1|0, 1"

#: What docs/faults.md calls the outcomes of tests.
OUTCOMES = {"passed": "as promised", "failed": "**not as promised**", "skipped": "not tried"}


def fault_of(nodeid):
    return nodeid.rpartition("::test_")[2].replace("_", " ")


def pytest_terminal_summary(terminalreporter):
    """Print what became of each fault, as the table that docs/faults.md keeps."""
    rows = sorted(
        f"| {fault_of(report.nodeid)} | {words} | {report.duration:.0f} |"
        for outcome, words in OUTCOMES.items()
        for report in terminalreporter.stats.get(outcome, ())
        if report.when == "call" and report.nodeid.startswith("tests/faults/")
    )
    if rows:
        terminalreporter.section("faults")
        terminalreporter.write("\n".join(["| fault | ended | s |", "|---|---|---|", *rows]) + "\n")


def settings():
    """Return what a run's config says beside the arguments of `train`."""
    return {"training": {"log_every_steps": 1, "checkpoint": {"every_steps": 4}}}


@pytest.fixture(scope="session")
def rows(cluster_spark):
    frame = cluster_spark.range(0, ROWS, 1, 3).selectExpr(
        "id", "cast(rand(1) as float) a", "cast(rand(2) as float) b"
    )
    return frame.selectExpr("*", "3 * a - 2 * b + 1 as y")


def prepared(rows, path, **settings):
    return spark_dl.prepare(
        rows, features=["a", "b"], label="y", id="id", path=str(path), seed=7, **settings
    )


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Give folders that all processes of these tests share; the first that asks fills one."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name, fill):
        path, stamp = root / name, root / f"{name}.made"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not stamp.exists():
                shutil.rmtree(path, ignore_errors=True)
                fill(path)
                stamp.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def dataset(rows, made_once):
    path = made_once("faults-dataset", lambda path: prepared(rows, path))
    return Dataset.open(str(path))


def sha256(model_path):
    """Hash the weights of an exported model."""
    with zipfile.ZipFile(os.path.join(model_path, "model.keras")) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    digest = hashlib.sha256()

    def add(name, item):
        if isinstance(item, h5py.Dataset) and "optimizer" not in name:
            digest.update(name.encode() + np.ascontiguousarray(item[()]).tobytes())

    with h5py.File(weights) as file:
        file.visititems(add)
    return digest.hexdigest()


@pytest.fixture
def copied_dataset(dataset, tmp_path):
    """Give a dataset of one's own, to be damaged."""
    path = str(tmp_path / "dataset")
    shutil.copytree(dataset.path, path)
    return Dataset.open(path)


def pids_at_gate(folder, check, workers=WORKERS):
    """Wait until each rank's child stands at the gate; return their pids.

    `check` is called often, and asserts that there is something to wait for.
    """
    deadline = time.monotonic() + DEADLINE_S
    files = [reached(folder, number) for number in range(workers)]
    while not all(os.path.exists(path) for path in files):
        check()
        assert time.monotonic() < deadline, "the workers did not reach the gate"
        time.sleep(0.02)
    return [int(Path(path).read_text()) for path in files]


def first_line(error):
    return str(error).splitlines()[0]


@dataclass
class Caught:
    """A run in a thread, which stands still at its gate."""

    paths: RunPaths
    folder: str
    thread: threading.Thread
    outcome: dict = field(default_factory=dict)

    def children(self, workers=WORKERS):
        """Return the pid of each rank's child, once all stand at the gate."""

        def check():
            assert self.thread.is_alive(), self.outcome

        return pids_at_gate(self.folder, check, workers)

    def go(self):
        Path(self.folder, "go").touch()

    def result(self):
        """Return the finished run, or raise what it raised."""
        self.go()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive(), "the run hangs"
        if "error" in self.outcome:
            raise self.outcome["error"]
        return self.outcome["run"]

    def fails(self, *causes, ranks=SOME_RANKS, attempt=1, retryable=False):
        """Let the run go, which must fail: first line and status say who, why and what now."""
        with pytest.raises(TrainingFailedError) as ended:
            self.result()
        line = first_line(ended.value)
        assert re.match(rf"\[rank ({ranks}) on ", line), line
        for cause in causes:
            assert cause in line
        status = self.status
        assert (status.status, status.attempt) == (JobState.FAILED, attempt)
        assert status.error.error_class == type(ended.value).__name__
        assert first_line(status.error.message) == line
        assert ended.value.retryable is status.error.retryable is retryable
        return ended.value

    @property
    def status(self):
        return JobStatus.read(self.paths.status)

    @property
    def metrics(self):
        with open(self.paths.metrics, encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        return [{k: v for k, v in record.items() if k != "time"} for record in records]


@pytest.fixture
def start(dataset, cluster_spark, tmp_path):
    """Start a run in a thread.

    At the end it is an error if processes of it are left, if its status does not say how it ended,
    if it has left half a model, or if Spark is of no use any more.
    """
    before = set(descendants(os.getpid()))
    runs = []

    def begin(backend="barrier", run_id="run", act=None, model_fn=watched, **more):
        rows = more.pop("dataset", dataset)
        first = more.pop("first", lambda: None)
        folder = str(tmp_path / f"gate-{len(runs)}")
        os.makedirs(folder)
        config = {**settings(), **more.pop("config", {})}
        arguments = {
            "params": {"folder": folder, "at": AT, "act": act},
            "num_workers": WORKERS,
            "global_batch_size": BATCH,
            "epochs": EPOCHS,
            "seed": 3,
            "runs": tmp_path / "runs",
            "run_id": run_id,
            "backend": backend,
            "tensorboard": False,
            "config": config,
            **more,
        }

        def work():
            try:
                first()
                caught.outcome["run"] = spark_dl.train(model_fn, rows, **arguments)
            except BaseException as error:  # noqa: BLE001 - raised by result()
                caught.outcome["error"] = error

        thread = threading.Thread(target=work, daemon=True)
        paths = RunPaths(runs=str(tmp_path / "runs"), run_id=run_id)
        caught = Caught(paths, folder, thread)
        runs.append(caught)
        thread.start()
        return caught

    yield begin
    for caught in runs:
        caught.go()
        caught.thread.join(DEADLINE_S)
        assert not caught.thread.is_alive(), "the run hangs"
    assert not orphans(before)
    wait_for_the_hit()
    for caught in runs:
        assert_nothing_is_half_done(caught.paths)
    assert cluster_spark.range(5).count() == 5


def assert_nothing_is_half_done(paths):
    """Check that the status says how a run ended, and that it has a model if it ended well."""
    if not os.path.exists(paths.status):  # it never had a folder
        return
    state = JobStatus.read(paths.status).status
    assert state in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    models = os.listdir(paths.models) if os.path.exists(paths.models) else []
    assert models == (["1"] if state is JobState.SUCCEEDED else [])


def orphans(before):
    """Return the training processes that are still there, after a moment in which they may end."""
    deadline = time.monotonic() + 15
    while True:
        left = [pid for pid in descendants(os.getpid()) if pid not in before and is_child(pid)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


@pytest.fixture(scope="session")
def alone(dataset, made_once):
    """What a run leaves that nobody disturbs."""

    def train(root):
        os.makedirs(root / "gate")
        (root / "gate" / "go").touch()
        spark_dl.train(
            watched,
            dataset,
            params={"folder": str(root / "gate"), "at": AT, "act": None},
            num_workers=WORKERS,
            global_batch_size=BATCH,
            epochs=EPOCHS,
            seed=3,
            runs=root,
            run_id="alone",
            backend="barrier",
            tensorboard=False,
            config=settings(),
        )

    paths = RunPaths(runs=str(made_once("faults-alone", train)), run_id="alone")
    return Caught(paths, "", threading.Thread()), finished_run(paths)


@pytest.fixture
def as_if_nothing_happened(alone):
    """Check that a run ended as the one that was left alone."""
    undisturbed, expected = alone

    def check(caught, run, *, attempt=2):
        assert sha256(run.model_path) == sha256(expected.model_path)
        assert run.history == expected.history
        assert caught.metrics == undisturbed.metrics
        assert (caught.status.status, caught.status.attempt) == ("succeeded", attempt)

    return check

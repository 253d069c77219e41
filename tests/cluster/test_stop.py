"""A run that somebody stops from another process: its children end, its status says so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import spark_dl
from spark_dl.errors import CancelledError
from spark_dl.storage import JobState, JobStatus, RunPaths
from spark_dl.testing import descendants, is_alive

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DEADLINE_S = 240


def linear(spec, params):
    import keras

    print(f"child {os.getpid()}")
    inputs = {feature.name: keras.Input((), name=feature.name) for feature in spec.features}
    columns = [keras.layers.Reshape((1,))(tensor) for tensor in inputs.values()]
    model = keras.Model(inputs, keras.layers.Dense(1, name="y")(columns[0]))
    model.compile(optimizer="sgd", loss="mse")
    return model


def cli(*words):
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from spark_dl.cli import main; sys.exit(main())",
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def _runs(paths):
    """Whether the run's status says that it has made a step."""
    return os.path.exists(paths.status) and JobStatus.read(paths.status).status is JobState.RUNNING


def children():
    """The training processes on this machine's executors."""
    return [pid for pid in descendants(os.getpid()) if "spark_dl.cluster.child" in _command(pid)]


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


@pytest.mark.parametrize(
    "backend", ["barrier", pytest.param("tensorflowonspark", marks=pytest.mark.long)]
)
def test_a_run_is_stopped_from_another_process(cluster_spark, tmp_path, backend):
    rows = cluster_spark.range(0, 200, 1, 2).selectExpr(
        "id", "cast(id as float) / 200 as a", "cast(id as float) as y"
    )
    dataset = spark_dl.prepare(
        rows, features={"a": spark_dl.Feature("a", cast="float")}, label="y", path=tmp_path / "data"
    )
    paths = RunPaths(runs=str(tmp_path / "runs"), run_id="long")

    def train():
        return spark_dl.train(
            linear,
            dataset,
            epochs=1_000_000,
            num_workers=2,
            runs=paths.runs,
            run_id=paths.run_id,
            backend=backend,
            tensorboard=False,
            spark=cluster_spark,
        )

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(train)
        end = time.monotonic() + DEADLINE_S
        while not _runs(paths) and not running.done():
            assert time.monotonic() < end, "the training did not begin"
            threading.Event().wait(0.1)
        listed = cli("runs", "list", "--runs", paths.runs).stdout
        at_work = children()
        done = cli("runs", "stop", "long", "--runs", paths.runs)
        error = running.exception(timeout=DEADLINE_S)
    assert "running  " in listed
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "long: cancelled"
    assert isinstance(error, CancelledError)
    assert "asked it to stop" in str(error)
    status = JobStatus.read(paths.status)
    assert status.status is JobState.CANCELLED
    assert len(at_work) == 2
    while any(is_alive(pid) for pid in at_work):
        assert time.monotonic() < end + DEADLINE_S, "a child outlived its run"
        threading.Event().wait(0.1)
    assert not os.path.exists(paths.stop)
    assert cluster_spark.range(5).count() == 5

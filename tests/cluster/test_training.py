"""Whole trainings on two real executors, both backends."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import spark_dl
from spark_dl.config import CheckpointConfig
from spark_dl.errors import (
    ConfigError,
    DataError,
    ManifestError,
    ResourceError,
    TrainingFailedError,
)
from spark_dl.storage import JobState, JobStatus, RunPaths
from spark_dl.training.checkpoint import CheckpointStore

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

BACKENDS = ["barrier", "tensorflowonspark"]
ROWS = 300
BATCH = 20
DEADLINE_S = 120


def linear(spec, params):
    import keras

    inputs = {feature.name: keras.Input((), name=feature.name) for feature in spec.features}
    columns = [keras.layers.Reshape((1,))(tensor) for tensor in inputs.values()]
    output = keras.layers.Dense(1, name="y")(keras.layers.Concatenate()(columns))
    model = keras.Model(inputs, output)
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse", metrics=["mae"])
    return model


def fail_on_rank(spec, params):
    print("about to fail")
    if json.loads(os.environ["TF_CONFIG"])["task"]["type"] == params["role"]:
        message = f"boom at {time.time()}"
        raise RuntimeError(message)
    return linear(spec, params)


def gated(spec, params):
    """A model whose second epoch ends only when a file is there."""
    import keras

    class Gate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            deadline = time.monotonic() + DEADLINE_S
            while epoch == 1 and not os.path.exists(params["gate"]):
                if time.monotonic() > deadline:
                    message = "the gate did not open"
                    raise TimeoutError(message)
                time.sleep(0.05)

    class Gated(keras.Model):
        def fit(self, *args, callbacks=(), **settings):
            return super().fit(*args, callbacks=[*callbacks, Gate()], **settings)

    plain = linear(spec, params)
    model = Gated(plain.input, plain.output)
    model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
    return model


@pytest.fixture(scope="module")
def frame(cluster_spark):
    return cluster_spark.range(0, ROWS, 1, 3).selectExpr(
        "id",
        "cast(sin(id) as float) as a",
        "cast(cos(id * 0.7) as float) as b",
        "cast(2 * sin(id) - cos(id * 0.7) + 1 as float) as y",
    )


@pytest.fixture(scope="module")
def dataset(frame, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("dataset") / "linear")
    return spark_dl.prepare(frame, features=["a", "b"], label="y", id="id", path=path, seed=7)


@pytest.fixture
def train(dataset, tmp_path):
    def run(model_fn=linear, **settings):
        settings = {
            "num_workers": 2,
            "global_batch_size": BATCH,
            "runs": tmp_path / "runs",
            "tensorboard": False,
        } | settings
        return spark_dl.train(model_fn, settings.pop("dataset", dataset), **settings)

    return run


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "backend", ["barrier", pytest.param("tensorflowonspark", marks=pytest.mark.long)]
)
def test_a_failed_training_says_so_at_once_and_goes_on_under_its_id(
    train, backend, tmp_path, cluster_spark
):
    delays = []
    for rank, role in enumerate(["chief", "worker"]):
        paths = RunPaths(runs=str(tmp_path / "runs"), run_id=f"run-{role}")
        with pytest.raises(TrainingFailedError, match="RuntimeError: boom") as caught:
            train(fail_on_rank, params={"role": role}, backend=backend, run_id=paths.run_id)
        assert [failure.rank for failure in caught.value.failures] == [rank]
        delays.append(time.time() - float(re.search(r"boom at (\S+)", str(caught.value))[1]))
        assert "in fail_on_rank" in str(caught.value)
        assert "about to fail" in str(caught.value)
        status = JobStatus.read(paths.status)
        assert (status.status, status.attempt) == (JobState.FAILED, 1)
        assert (status.error.rank, status.error.retryable) == (rank, False)
    # at once, that is: not at the end of any wait; a shared machine may pause meanwhile
    assert min(delays) < 10
    assert max(delays) < 30
    run = train(backend=backend, run_id=paths.run_id, epochs=2)
    assert len(run.history["loss"]) == 2
    assert run.history["loss"][-1] < run.history["loss"][0]
    status = JobStatus.read(paths.status)
    assert (status.status, status.attempt, status.error) == (JobState.SUCCEEDED, 2, None)
    assert cluster_spark.range(5).count() == 5


@pytest.mark.parametrize(
    "backend", [pytest.param("barrier", marks=pytest.mark.long), "tensorflowonspark"]
)
def test_a_run_leaves_everything_that_it_promises(train, dataset, frame, backend):
    run = train(backend=backend, epochs=3)
    paths = RunPaths(runs=os.path.dirname(run.path), run_id=run.run_id)
    assert set(run.history) == {"loss", "mae", "val_loss", "val_mae"}
    assert all(len(values) == 3 for values in run.history.values())
    assert run.metrics["val_loss"] == run.history["val_loss"][-1]
    status = JobStatus.read(paths.status)
    assert (status.status, status.metrics) == (JobState.SUCCEEDED, run.metrics)
    steps = dataset.manifest.totals["train"] // BATCH
    assert status.cost["rows"] == 3 * steps * BATCH
    assert 0 < status.cost["cpu_seconds"] < 2 * status.cost["core_seconds"]
    assert status.cost["gb_seconds"] > 0
    spec = Path(run.model_path, "feature_spec.json").read_text()
    assert spark_dl.FeatureSpec.from_json(spec) == dataset.spec
    records = [json.loads(line) for line in Path(paths.metrics).read_text().splitlines()]
    epochs = [r for r in records if r["scope"] == "epoch"]
    assert [(r["split"], r["epoch"], r["step"]) for r in epochs] == [
        (split, epoch, steps * (epoch + 1))
        for epoch in range(3)
        for split in ("train", "validation")
    ]
    assert sorted(os.listdir(paths.events)) == ["train", "validation"]
    assert_checkpoints(paths, steps)
    predictions = spark_dl.predict(dataset.table("test"), run.model_path)
    rows = predictions.collect()
    assert len(rows) == dataset.manifest.totals["test"]
    assert {row.model_run_id for row in rows} == {run.run_id}
    error = sum(abs(row.prediction - row.y) for row in rows) / len(rows)
    assert error < 1.5 * run.metrics["val_mae"] + 0.1


def assert_checkpoints(paths, steps):
    store = CheckpointStore(paths, CheckpointConfig())
    assert store.steps() == [steps * 2, steps * 3]
    record = store.newest()
    assert (record.position.epoch, record.position.world_size) == (3, 2)
    assert len(record.ranks) == 2
    assert store.read_part(record, record.model)["weights/0"].shape == (2, 1)


def test_the_same_finished_run_is_returned_not_repeated(train):
    run = train(run_id="once", epochs=2, backend="barrier")
    again = train(fail_on_rank, run_id="once", params={"role": "chief"})
    assert (again.history, again.model_path) == (run.history, run.model_path)


def test_bad_settings_are_refused_before_anything_starts(train, dataset, tmp_path):
    with pytest.raises(
        ConfigError, match=r"global_batch_size=21 cannot be divided by 2 workers.*20 or 22"
    ):
        train(global_batch_size=21, run_id="odd")
    status = JobStatus.read(RunPaths(runs=str(tmp_path / "runs"), run_id="odd").status)
    assert (status.status, status.error.error_class) == (JobState.FAILED, "ConfigError")
    with pytest.raises(DataError, match="fewer than one global batch of 1000"):
        train(global_batch_size=1000)
    with pytest.raises(ManifestError, match="holds no finished dataset; run prepare first"):
        train(dataset=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"train\(\): training.epochs"):
        train(epochs=0)


def test_more_workers_than_slots_are_refused_at_once(train):
    started = time.monotonic()
    with pytest.raises(ResourceError, match="3 workers do not fit: Spark has 2 task slots"):
        train(num_workers=3)
    assert time.monotonic() - started < 30  # Spark's own check takes 10 minutes


def test_a_model_fn_that_is_none_is_said_plainly(train):
    message = "ConfigError: model_fn 'no_such_module:build' cannot be imported on the executor"
    with pytest.raises(TrainingFailedError, match=message):
        train("no_such_module:build", backend="barrier")


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own TensorBoard
        return json.load(answer)


def test_tensorboard_shows_both_curves_while_training_runs(train, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="spark_dl.monitoring.progress")
    gate = tmp_path / "gate"
    outcome = {}

    def work():
        outcome["run"] = train(
            gated, params={"gate": str(gate)}, epochs=3, backend="barrier", tensorboard=True
        )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wanted = {"train": "epoch/loss", "validation": "epoch/loss"}
        deadline = time.monotonic() + DEADLINE_S
        tags = {}
        while not all(tag in tags.get(name, {}) for name, tag in wanted.items()):
            assert time.monotonic() < deadline, f"TensorBoard lists {tags}"
            assert thread.is_alive()
            time.sleep(0.2)
            # not caplog.text: pyspark's structured logging may have made JSON of its lines
            said = "\n".join(record.getMessage() for record in caplog.records)
            if found := re.search(r"^TensorBoard: (\S+)$", said, re.MULTILINE):
                # a run that has appeared but is not loaded yet is a 404 to TensorBoard
                with contextlib.suppress(urllib.error.HTTPError):
                    tags = get(f"{found[1]}data/plugin/scalars/tags")
        scalars = get(f"{found[1]}data/plugin/scalars/scalars?run=validation&tag=epoch%2Floss")
        assert len(scalars) >= 1
        assert set(get(f"{found[1]}data/runs")) == {"train", "validation"}
        assert get(f"{found[1]}data/plugin/graphs/info")["train"]["run_graph"]
        assert thread.is_alive(), "it must answer while training runs"
    finally:
        gate.touch()
        thread.join(timeout=DEADLINE_S)
    assert outcome["run"].tensorboard_url == found[1]
    with pytest.raises(OSError, match="refused"):
        get(f"{found[1]}data/runs")


DRIVER_WITHOUT_TENSORFLOW = """
import importlib.util, sys
import spark_dl
from spark_dl.session import embedded_session

assert importlib.util.find_spec("tensorflow") is None, "this driver must not have tensorflow"
assert importlib.util.find_spec("keras") is None

def linear(spec, params):
    import keras
    inputs = {f.name: keras.Input((), name=f.name) for f in spec.features}
    columns = [keras.layers.Reshape((1,))(t) for t in inputs.values()]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(columns)))
    model.compile(optimizer="sgd", loss="mse")
    return model

with embedded_session() as spark:
    for backend in ("barrier", "tensorflowonspark"):
        run = spark_dl.train(linear, sys.argv[1], runs=sys.argv[2], run_id=backend, backend=backend,
                             num_workers=2, global_batch_size=20, tensorboard=False, spark=spark)
        print("TRAINED", backend, run.metrics["loss"])
"""


@pytest.mark.long
def test_a_driver_without_tensorflow_trains(dataset, tmp_path):
    """Its site-packages are ours without TensorFlow and Keras; the executors have the whole."""
    hidden = ("tensorflow", "keras", "tf_keras")
    site = tmp_path / "site"
    site.mkdir()
    for entry in os.scandir(sysconfig.get_path("purelib")):
        if not entry.name.lower().startswith(hidden) or entry.name.startswith("tensorflowonspark"):
            os.symlink(entry.path, site / entry.name)
    source = os.path.dirname(os.path.dirname(spark_dl.__file__))
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER_WITHOUT_TENSORFLOW))
    bare = os.path.realpath(sys.executable)  # the interpreter behind the virtual environment
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SPARK")}
    environ |= {"PYTHONPATH": f"{source}{os.pathsep}{site}", "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        [bare, "-S", str(script), dataset.path, str(tmp_path / "runs")],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.findall(r"TRAINED (\w+)", done.stdout) == BACKENDS

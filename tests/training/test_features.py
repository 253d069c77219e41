"""Settings of a training, on two real ranks beside one process: what they do, and to whom."""

from __future__ import annotations

import dataclasses
import glob
import io
import json
import os
import zipfile

import numpy as np
import pytest

from spark_dl.config import LearningRateConfig, ValidationConfig
from spark_dl.schema import Role, SpecEntry
from spark_dl.storage import RunPaths
from spark_dl.testing import run_ranks, write_shards
from spark_dl.training import TrainTask
from spark_dl.training.task import Board

pytestmark = pytest.mark.timeout(900)

ROWS, BATCH, PASS_STEPS = 121, 12, 10
EPOCHS, STEPS = 3, 7
#: two inputs, so that models get a dict of them
SPEC = (
    SpecEntry(name="a", column="a", dtype="float32", shape=(3,)),
    SpecEntry(name="b", column="b", dtype="float32", shape=(2,)),
    SpecEntry(name="y", column="y", dtype="int64", role=Role.LABEL),
)


def two_headed(spec, params):
    """Two inputs, two outputs, a loss and a step of its own, and what has a state."""
    import keras
    import tensorflow as tf

    keras.config.set_floatx(params.get("floatx", "float64"))

    class TwoHeaded(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            target = tf.cast(tf.reshape(y, [-1, 1]), y_pred["first"].dtype)
            each = tf.square(y_pred["first"] - target) + 0.5 * tf.abs(y_pred["second"] - target)
            if sample_weight is not None:
                each *= tf.cast(tf.reshape(sample_weight, [-1, 1]), each.dtype)
            return tf.reduce_mean(each)

        def train_step(self, data):
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x, y, y_pred, weight)
            self._loss_tracker.update_state(loss, sample_weight=tf.shape(y)[0])
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": self._loss_tracker.result()}

    inputs = {f.name: keras.Input(f.shape, name=f.name) for f in spec.features}
    hidden = keras.layers.Concatenate()(list(inputs.values()))
    if params.get("normalised"):
        hidden = keras.layers.BatchNormalization(momentum=0.5)(hidden)
    hidden = keras.layers.Dense(5, activation="tanh", name="hidden")(hidden)
    if params.get("breaks"):
        hidden = keras.layers.Lambda(lambda t: tf.math.log(t - 2.0), name="risky")(hidden)
    heads = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("first", "second")}
    model = TwoHeaded(inputs, heads)
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    return model


def cases(dataset, runs):
    plain = TrainTask(
        model_fn=two_headed,
        dataset=dataset,
        paths=RunPaths(runs=runs, run_id="plain"),
        epochs=EPOCHS,
        global_batch_size=BATCH,
        seed=5,
        log_every_steps=1,
    )

    def case(name, **changes):
        paths = RunPaths(runs=runs, run_id=name)
        return dataclasses.replace(plain, paths=paths, **changes)

    return {
        "plain": plain,
        "short epochs": case("short", steps_per_epoch=STEPS),
        "class weights": case("weights", class_weight={0: 1.0, 2: 3.0}, remainder="pad"),
        "warm-up": case("warm-up", learning_rate=LearningRateConfig(warmup_steps=15)),
        "scaled": case("scaled", learning_rate=LearningRateConfig(scale="linear"), epochs=1),
        "validated": case(
            "validated",
            params={"normalised": True, "floatx": "float32"},
            validation=ValidationConfig(every_epochs=2, every_steps=4),
        ),
        "not validated": case("not-validated", params={"normalised": True, "floatx": "float32"}),
        "board": case(
            "board",
            params={"units": 5},
            board=Board(histograms_every_epochs=2, profile_steps=(3, 4), job="epochs: 3"),
        ),
    }


def run_cases(tasks, context):
    from spark_dl.errors import DataError
    from spark_dl.training.collective import form_collective
    from spark_dl.training.worker import fit

    collective = form_collective(context.rank, context.world_size, cores=1)
    report = {}
    for name, task in tasks.items():
        try:
            report[name] = outcome(fit(task, collective, context.report), collective.rank)
        except DataError as error:
            report[name] = {"error": str(error)}
    return report


def outcome(result, rank):
    entry = {"history": result["history"], "steps": result["steps"]}
    if rank == 0:
        entry["weights"] = weights_of(f"{result['model_path']}/model.keras")
    return entry


def weights_of(path):
    """The weights in the order of their names in the file, which the layers' classes decide."""
    import h5py

    found = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset) and "optimizer" not in name:
            found[name] = np.ravel(item[()])

    with (
        zipfile.ZipFile(path) as archive,
        h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
    ):
        file.visititems(add)
    return np.concatenate([found[name] for name in sorted(found)]).tolist()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dataset"))
    rng = np.random.default_rng(3)

    def columns(rows):
        a, b = (rng.normal(size=(rows, n)).astype(np.float32) for n in (3, 2))
        return {"a": a, "b": b, "y": np.digitize(a[:, 0] + b[:, 0], [-0.5, 0.5])}

    write_shards(folder, SPEC, {"train": columns(ROWS), "validation": columns(31)})
    return folder


@pytest.fixture(scope="module")
def two(dataset, tmp_path_factory):
    """What two ranks make of all cases."""
    runs = str(tmp_path_factory.mktemp("two"))
    tasks = cases(dataset, runs)
    broken = dataclasses.replace(
        tasks["plain"],
        paths=RunPaths(runs=runs, run_id="broken"),
        params={"breaks": True},
        check_numerics=True,
    )
    return tasks, run_ranks(run_cases, {**tasks, "broken": broken}, world_size=2)


@pytest.fixture(scope="module")
def one(dataset, tmp_path_factory):
    """What one process makes of those that do not depend on the number of ranks."""
    tasks = cases(dataset, str(tmp_path_factory.mktemp("one")))
    names = ("plain", "short epochs", "class weights", "warm-up")
    return run_ranks(run_cases, {name: tasks[name] for name in names}, world_size=1)[0]


@pytest.mark.parametrize("name", ["plain", "short epochs", "class weights", "warm-up"])
def test_two_ranks_learn_what_one_process_does(one, two, name):
    _, (chief, other) = two
    np.testing.assert_allclose(chief[name]["weights"], one[name]["weights"], rtol=1e-9, atol=1e-12)
    assert chief[name]["history"] == other[name]["history"]
    if name != "plain":
        assert not np.allclose(chief[name]["weights"], chief["plain"]["weights"], rtol=1e-3)


def metrics(task):
    with open(task.paths.metrics, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_an_epoch_has_as_many_steps_as_asked_for(two):
    tasks, (chief, _) = two
    assert chief["short epochs"]["steps"] == EPOCHS * STEPS
    ends = [r["step"] for r in metrics(tasks["short epochs"]) if r["scope"] == "epoch"]
    assert ends == [7, 7, 14, 14, 21, 21]


def test_the_rate_grows_with_the_workers(one, two):
    """Twice the rate over one epoch, momentum and all, is not the plain course."""
    _, (chief, _) = two
    assert chief["scaled"]["history"]["loss"][0] != chief["plain"]["history"]["loss"][0]


def test_validation_comes_when_asked_for_and_changes_nothing(two):
    tasks, (chief, _) = two
    records = [r for r in metrics(tasks["validated"]) if r["split"] == "validation"]
    steps = [(r["step"], r["scope"]) for r in records]
    # at 20 the second epoch ends with one anyway
    assert steps == [
        (4, "step"), (8, "step"), (12, "step"), (16, "step"), (20, "epoch"), (24, "step"),
        (28, "step"),
    ]  # fmt: skip
    often, seldom = chief["validated"], chief["not validated"]
    assert often["history"]["loss"] == seldom["history"]["loss"]
    assert often["weights"] == seldom["weights"]
    assert often["history"]["val_loss"] == seldom["history"]["val_loss"][1:2]


def test_tensorboard_gets_histograms_texts_parameters_and_a_profile(two):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tasks, _ = two
    folder = os.path.join(tasks["board"].paths.events, "train")
    events = EventAccumulator(folder, size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert "weights/hidden/kernel" in tags
    assert [e.step for e in events.Tensors("weights/hidden/kernel")] == [2 * PASS_STEPS]
    assert b"epochs: 3" in events.Tensors("job")[0].tensor_proto.string_val[0]
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    assert glob.glob(os.path.join(folder, "plugins", "profile", "*", "*.xplane.pb"))


def test_the_operation_and_the_layer_of_the_first_nan_are_named(two):
    _, (chief, _) = two
    told = chief["broken"]["error"]
    assert "came out of operation Log in layer " in told
    assert "risky" in told

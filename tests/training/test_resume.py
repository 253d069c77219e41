"""A run that was killed anywhere ends as the one that was left alone: same bits, same records."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from spark_dl.config import CheckpointConfig
from spark_dl.errors import ConfigError, TrainingFailedError
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask
from spark_dl.training.checkpoint import CheckpointStore

pytestmark = pytest.mark.timeout(900)

SIZE = 8
BATCH = 12
STEPS_PER_EPOCH = 7
EPOCHS = 3
EVERY_STEPS = 3


def network(spec, params):
    """All that has a state: statistics, random layers, an optimizer with slots, metrics."""
    import keras

    inputs = keras.Input(spec["x"].shape, name="x")
    hidden = keras.layers.BatchNormalization(momentum=0.8)(inputs)
    hidden = keras.layers.Dense(params.get("width", 6), activation="relu")(hidden)
    hidden = keras.layers.Dropout(0.3)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(
        optimizer=keras.optimizers.Adam(0.01, use_ema=params.get("ema", False)),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    return model


def wait_for_a_checkpoint(paths):
    deadline = time.monotonic() + 120
    while not list(Path(paths.checkpoints).glob("step-*/checkpoint.json")):
        if time.monotonic() > deadline:
            message = "no checkpoint was written"
            raise TimeoutError(message)
        time.sleep(0.01)


def kill_at(step):
    """Return a rank's function that trains and, in the step asked for, is killed."""

    def run(task, context):
        import keras

        from spark_dl.training import worker

        class Kill(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if step is not None and int(self.model.optimizer.iterations.numpy()) == step:
                    if step > EVERY_STEPS:
                        wait_for_a_checkpoint(task.paths)  # its writer has a thread of its own
                    os.kill(os.getpid(), signal.SIGKILL)

        before = worker.Checkpoints

        class Last(before):
            """What was due at the step is on its way or not: both must be survived."""

            def on_train_batch_end(self, batch, logs=None):
                super().on_train_batch_end(batch, logs)
                Kill.on_train_batch_end(self, batch, logs)

        worker.Checkpoints = Last
        result = worker.train(task, context)
        model = (
            keras.saving.load_model(f"{task.paths.model(1)}/model.keras")
            if (context.rank == 0)
            else None
        )
        if model is not None:
            raw = b"".join(np.ascontiguousarray(w).tobytes() for w in model.get_weights())
            result["sha256"] = hashlib.sha256(raw).hexdigest()
        return result

    return run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dataset"))
    rng = np.random.default_rng(3)

    def columns(rows):
        x = rng.normal(size=(rows, SIZE)).astype(np.float32)
        return {"x": x, "y": (x.sum(axis=1) > 0).astype(np.float32)}

    splits = {"train": columns(STEPS_PER_EPOCH * BATCH + 5), "validation": columns(31)}
    write_shards(folder, dense_entries(SIZE), splits)
    return folder


def make_task(dataset, runs, **changes):
    settings = {
        "model_fn": network,
        "dataset": dataset,
        "paths": RunPaths(runs=str(runs), run_id="run"),
        "epochs": EPOCHS,
        "global_batch_size": BATCH,
        "seed": 7,
        "log_every_steps": 1,
        "checkpoint": CheckpointConfig(every_steps=EVERY_STEPS, keep=3),
        **changes,
    }
    return TrainTask(**settings)


def metrics(task):
    with open(task.paths.metrics, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def untimed(records):
    return [{name: value for name, value in r.items() if name != "time"} for r in records]


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    """The run that nobody disturbs."""
    task = make_task(dataset, tmp_path_factory.mktemp("alone"))
    return task, run_ranks(kill_at(None), task, world_size=2)[0]


@pytest.mark.parametrize(
    "step", [5, *(pytest.param(step, marks=pytest.mark.kills) for step in (2, 8, 14, 20))]
)
def test_killed_and_resumed_is_as_never_killed(dataset, tmp_path, alone, step):
    task = make_task(dataset, tmp_path)
    with pytest.raises(TrainingFailedError, match="SIGKILL"):
        run_ranks(kill_at(step), task, world_size=2)
    result = run_ranks(kill_at(None), task, world_size=2)[0]
    undisturbed, expected = alone
    assert result["resumed_from"] < step
    assert result["resumed_from"] > 0 or step == 2
    assert result["sha256"] == expected["sha256"]
    assert result["history"] == expected["history"]
    assert untimed(metrics(task)) == untimed(metrics(undisturbed))


def patient(rank):
    """Callbacks that remember: one ends the training, the other slows it down."""
    import keras

    assert rank.world_size == 2
    return [
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", patience=1, min_delta=9, cooldown=1),
        keras.callbacks.EarlyStopping(
            monitor="val_loss", patience=2, min_delta=9, restore_best_weights=True
        ),
    ]


@pytest.mark.kills
def test_what_callbacks_remember_survives(dataset, tmp_path, tmp_path_factory):
    settings = {"callbacks": patient, "epochs": 9}
    undisturbed = make_task(dataset, tmp_path_factory.mktemp("patient"), **settings)
    expected = run_ranks(kill_at(None), undisturbed, world_size=2)[0]
    task = make_task(dataset, tmp_path, **settings)
    with pytest.raises(TrainingFailedError, match="SIGKILL"):
        run_ranks(kill_at(17), task, world_size=2)  # in the third and last epoch
    result = run_ranks(kill_at(None), task, world_size=2)[0]
    assert result["resumed_from"] == 15
    assert len(result["history"]["loss"]) == 3 < task.epochs
    assert result["history"] == expected["history"]
    assert result["sha256"] == expected["sha256"]
    again = run_ranks(kill_at(None), task, world_size=2)[0]
    assert again["resumed_from"] == 21, "a run that a callback has ended trains no further"
    assert again["sha256"] == expected["sha256"]


@pytest.mark.kills
def test_event_files_hold_no_step_twice(dataset, tmp_path):
    import glob

    task = make_task(dataset, tmp_path)
    with pytest.raises(TrainingFailedError):
        run_ranks(kill_at(11), task, world_size=1)
    run_ranks(kill_at(None), task, world_size=1)
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    steps = []
    for path in sorted(glob.glob(os.path.join(task.paths.events, "train", "*"))):
        for event in EventFileLoader(path).Load():
            steps += [event.step for value in event.summary.value if value.tag == "step/loss"]
    assert sorted(steps) == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))


@pytest.mark.kills
def test_another_number_of_workers_goes_on_with_the_same_rows(dataset, tmp_path):
    task = make_task(dataset, tmp_path)
    with pytest.raises(TrainingFailedError):
        run_ranks(kill_at(12), task, world_size=2)
    result = run_ranks(kill_at(None), task, world_size=3)[0]
    assert 0 < result["resumed_from"] < 12
    steps = [r["step"] for r in metrics(task) if r["scope"] == "step"]
    assert steps == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    assert np.all(np.isfinite(result["history"]["val_loss"]))


def stopped(dataset, tmp_path, **changes):
    """A run of one worker that was killed in its second epoch."""
    task = make_task(dataset, tmp_path, **changes)
    with pytest.raises(TrainingFailedError):
        run_ranks(kill_at(10), task, world_size=1)
    return task


@pytest.fixture(scope="module")
def killed(dataset, tmp_path_factory):
    """A run that was killed, to be copied."""
    return stopped(dataset, tmp_path_factory.mktemp("killed"))


@pytest.fixture
def copied(killed, dataset, tmp_path):
    shutil.copytree(killed.paths.root, tmp_path / "run")
    return make_task(dataset, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"width": 9}}, "another model: variable .* has shape"),
        ({"seed": 8}, "seed 7 → 8"),
        ({"global_batch_size": 6}, "global_batch_size 12 → 6"),
    ],
)
def test_what_is_no_resume_is_refused(copied, changes, message):
    with pytest.raises(TrainingFailedError, match=message) as caught:
        run_ranks(kill_at(None), dataclasses.replace(copied, **changes), world_size=1)
    assert caught.value.failures[0].error == ConfigError.__name__


def test_a_damaged_checkpoint_costs_steps_only(copied):
    task = copied
    store = CheckpointStore(task.paths, task.checkpoint)
    newest = store.newest()
    path = os.path.join(store.root, f"step-{newest.position.step:08d}", newest.model)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    result = run_ranks(kill_at(None), task, world_size=1)[0]
    assert 0 < result["resumed_from"] < newest.position.step


@pytest.mark.kills
def test_moving_averages_of_weights_survive_too(dataset, tmp_path, tmp_path_factory):
    task = stopped(dataset, tmp_path, params={"ema": True})
    other = make_task(dataset, tmp_path_factory.mktemp("ema"), params={"ema": True})
    expected = run_ranks(kill_at(None), other, world_size=1)[0]
    assert run_ranks(kill_at(None), task, world_size=1)[0]["sha256"] == expected["sha256"]
    again = run_ranks(kill_at(None), task, world_size=1)[0]
    assert again["resumed_from"] == EPOCHS * STEPS_PER_EPOCH, "lost after its last step"
    assert again["sha256"] == expected["sha256"]

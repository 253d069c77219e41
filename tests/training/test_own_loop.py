"""A loop of the user's own: same rows, same gradients, same records as the built-in one."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spark_dl.errors import TrainingFailedError
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask
from spark_dl.training.entry import run_rank

SIZE, ROWS, BATCH, EPOCHS = 4, 64, 8, 2
STEPS = ROWS // BATCH


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dataset"))
    x = np.random.default_rng(3).normal(size=(ROWS + 10, SIZE)).astype(np.float32)
    rows = {"x": x, "y": x @ np.arange(1, SIZE + 1, dtype=np.float32)}
    splits = {
        "train": {name: values[:ROWS] for name, values in rows.items()},
        "validation": {name: values[ROWS:] for name, values in rows.items()},
    }
    write_shards(folder, dense_entries(SIZE), splits)
    return folder


def descend(ctx):
    """Linear regression by hand, with checkpoints."""
    import tensorflow as tf

    saved = ctx.checkpoint.restore()
    weights = tf.Variable(np.zeros(SIZE, np.float32) if saved is None else saved["weights"])
    seen = 0 if saved is None else int(saved["seen"])

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.linalg.matvec(x, weights) - y) ** 2)
        (gradient,) = ctx.all_reduce([tape.gradient(loss, weights)])
        weights.assign_sub(0.05 * gradient)
        return ctx.all_reduce([loss])[0]

    first = ctx.checkpoint.step
    for number, (features, y) in enumerate(ctx.dataset(start_step=first), first + 1):
        loss = step(features["x"], tf.reshape(y, [-1]))
        seen += int(y.shape[0])
        if number % STEPS == 0:
            ctx.report(number, loss=loss)
        if number % 3 == 0:
            ctx.checkpoint.save(number, {"weights": weights}, {"seen": seen})
        if number == ctx.params.get("die_at") and ctx.rank == 1 and not first:
            ctx.checkpoint.wait()
            os.kill(os.getpid(), signal.SIGKILL)
    validated = sum(int(y.shape[0]) for _, y in ctx.dataset("validation"))
    total = ctx.all_reduce([tf.constant(float(validated))], "sum")[0]
    ctx.report(number, split="validation", rows=total)
    if ctx.is_chief:
        np.save(os.path.join(ctx.paths.root, "weights.npy"), weights.numpy())
    assert seen == ROWS * EPOCHS // ctx.world_size


def with_a_model(ctx):
    import keras

    inputs = keras.Input((SIZE,), name="x")
    return keras.Model(inputs, keras.layers.Dense(1, name="y")(inputs))


def make_task(dataset, runs, train_fn=descend, **params):
    return TrainTask(
        train_fn=train_fn,
        params=params,
        dataset=dataset,
        paths=RunPaths(runs=str(runs), run_id="run"),
        epochs=EPOCHS,
        global_batch_size=BATCH,
        seed=5,
    )


def run(task, world_size=2):
    return run_ranks(run_rank, task, world_size=world_size)[0]


def weights(task):
    return np.load(os.path.join(task.paths.root, "weights.npy"))


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    task = make_task(dataset, tmp_path_factory.mktemp("alone"))
    return task, run(task)


def test_two_workers_learn_what_one_does(dataset, alone, tmp_path):
    task, result = alone
    assert len(result["history"]["loss"]) == EPOCHS
    assert result["history"]["val_rows"] == [10]
    assert result["model_path"] == ""
    single = make_task(dataset, tmp_path)
    run(single, world_size=1)
    np.testing.assert_allclose(weights(task), weights(single), rtol=1e-5)
    records = [json.loads(line) for line in Path(task.paths.metrics).read_text().splitlines()]
    assert [(r["split"], r["step"], r["epoch"]) for r in records] == [
        ("train", STEPS, 0),
        ("train", 2 * STEPS, 1),
        ("validation", 2 * STEPS, 1),
    ]


def test_batches_that_are_taken_tell_the_driver_that_the_rank_goes_on(
    dataset, tmp_path, monkeypatch
):
    """Or a loop that reports seldom would count as one that stands still."""
    from spark_dl.training import own_loop
    from spark_dl.training.collective import Collective

    now, told = itertools.count(0, own_loop._SIGN_S / 2), []
    monkeypatch.setattr(own_loop, "time", SimpleNamespace(monotonic=lambda: next(now)))
    ctx = own_loop.OwnLoop(make_task(dataset, tmp_path), Collective(), told.append)
    assert sum(1 for _ in ctx.dataset()) == EPOCHS * STEPS
    assert told == [{"kind": "pulse"}] * STEPS, "one each second, of two batches a second"
    told.clear()
    assert sum(int(y.shape[0]) for _, y in ctx.dataset("validation")) == 10
    assert told


@pytest.mark.kills
def test_a_killed_loop_goes_on_to_the_same_end(dataset, alone, tmp_path):
    task = make_task(dataset, tmp_path, die_at=11)
    with pytest.raises(TrainingFailedError, match="SIGKILL"):
        run(task)
    result = run(task)
    assert result["resumed_from"] == 9
    assert weights(task).tobytes() == weights(alone[0]).tobytes()
    assert result["history"] == alone[1]["history"]


def test_a_model_that_is_returned_is_exported(dataset, tmp_path):
    result = run(make_task(dataset, tmp_path, with_a_model), world_size=1)
    assert os.path.exists(os.path.join(result["model_path"], "model.keras"))


def test_anything_else_is_refused(dataset, tmp_path):
    with pytest.raises(TrainingFailedError, match="train_fn returned str, expected"):
        run(make_task(dataset, tmp_path, lambda ctx: "done"), world_size=1)

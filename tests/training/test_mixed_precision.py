"""Half precision on several ranks: they stay equal, learn, and skip a step together."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from spark_dl.config import CheckpointConfig
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask

SIZE, ROWS, BATCH, EPOCHS = 6, 64, 8, 4
STEPS = ROWS // BATCH
#: what a row holds whose gradient is more than float16 can be; the model's outputs are not
HUGE = 3e4
SCALE = 1024.0
#: steps without an infinity until the scale is doubled: less than an epoch has
GROWTH = 5
POLICIES = ("mixed_bfloat16", "mixed_float16")


def model_of(spec, params):
    """Dense layers, and an embedding whose gradient travels as rows."""
    import keras

    keras.mixed_precision.set_dtype_policy(params["policy"])
    inputs = keras.Input(spec["x"].shape, name="x")
    words = keras.ops.cast(keras.ops.abs(inputs[:, :2]) * 100, "int32")
    words = keras.layers.Embedding(500, 3)(keras.ops.mod(words, 500))
    hidden = keras.layers.Concatenate()([inputs, keras.layers.Flatten()(words)])
    # a tanh of what is huge has no gradient
    hidden = keras.layers.Dense(8, activation=params.get("activation", "tanh"))(hidden)
    outputs = keras.layers.Dense(1, dtype="float32")(hidden)
    model = keras.Model(inputs, outputs)
    optimizer = keras.optimizers.Adam(0.02)
    if params.get("scaled"):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, SCALE, GROWTH)
    model.compile(optimizer=optimizer, loss="huber", metrics=["mae"])
    return model


def recorder(rank):
    """Return a callback that writes each step's state to the run's folder."""
    import keras

    class Recorder(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.lines = [self.state()]

        def on_train_batch_end(self, batch, logs=None):
            self.lines.append(self.state())

        def on_train_end(self, logs=None):
            path = Path(rank.paths.root, f"{rank.params['name']}-{rank.rank}.json")
            path.write_text(json.dumps(self.lines))

        def state(self):
            optimizer = self.model.optimizer
            weights = b"".join(array.tobytes() for array in self.model.get_weights())
            slots = b"".join(np.asarray(v.numpy()).tobytes() for v in optimizer.variables)
            return {
                "weights": hashlib.sha256(weights).hexdigest(),
                "optimizer": hashlib.sha256(slots).hexdigest(),
                "scale": float(getattr(optimizer, "dynamic_scale", 1.0)),
                # Keras 3.8 leaves those of the optimizer that scales at 0
                "iterations": int(getattr(optimizer, "inner_optimizer", optimizer).iterations),
            }

    return Recorder()


def train_all(tasks, context):
    from spark_dl.training.collective import form_collective
    from spark_dl.training.worker import fit

    collective = form_collective(context.rank, context.world_size, cores=1)
    found = {}
    for name, task in tasks.items():
        result = fit(task, collective, context.report)
        path = Path(task.paths.root, f"{name}-{context.rank}.json")
        found[name] = {"loss": result["history"]["loss"], "steps": json.loads(path.read_text())}
        found[name]["resumed_from"] = result["resumed_from"]
    return found


def columns():
    x = np.random.default_rng(3).normal(size=(ROWS, SIZE)).astype(np.float32)
    return {"x": x, "y": np.tanh(x.sum(axis=1))}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Ordinary rows, and the same with a huge one among them."""
    rows = columns()
    folders = {"plain": rows, "huge": {**rows, "x": rows["x"].copy()}}
    folders["huge"]["x"][37, SIZE - 1] = HUGE
    for name, values in folders.items():
        folder = str(tmp_path_factory.mktemp(name))
        write_shards(folder, dense_entries(SIZE), {"train": values})
        folders[name] = folder
    return folders


def make_tasks(datasets, runs):
    def task(name, run_id, dataset, epochs=EPOCHS, **params):
        return TrainTask(
            model_fn=model_of,
            params={"name": name, **params},
            callbacks=recorder,
            dataset=datasets[dataset],
            paths=RunPaths(runs=runs, run_id=run_id),
            epochs=epochs,
            global_batch_size=BATCH,
            seed=5,
            checkpoint=CheckpointConfig(every_epochs=1),
        )

    tasks = {policy: task(policy, policy, "plain", policy=policy) for policy in POLICIES}
    scaled = {"policy": "mixed_float16", "scaled": True, "activation": "linear"}
    tasks["huge"] = task("huge", "huge", "huge", **scaled)
    tasks["half"] = task("half", "resumed", "huge", EPOCHS // 2, **scaled)
    tasks["resumed"] = task("resumed", "resumed", "huge", **scaled)
    return tasks


@pytest.fixture(scope="module")
def ranks(datasets, tmp_path_factory):
    """What each rank found, by the number of ranks."""
    return {
        size: run_ranks(
            train_all,
            make_tasks(datasets, str(tmp_path_factory.mktemp(f"runs-{size}"))),
            world_size=size,
        )
        for size in (1, 2)
    }


@pytest.mark.parametrize("name", [*POLICIES, "huge", "half", "resumed"])
def test_ranks_are_equal_after_each_step(ranks, name):
    first, second = (found[name] for found in ranks[2])
    assert first == second


@pytest.mark.parametrize("policy", POLICIES)
def test_two_ranks_learn_nearly_what_one_does(ranks, policy):
    (single,), (first, _) = ranks[1], ranks[2]
    one, two = single[policy]["loss"], first[policy]["loss"]
    assert all(now < before for before, now in itertools.pairwise(two))
    np.testing.assert_allclose(two, one, rtol=0.05)


def test_keras_scales_the_loss_of_float16_alone(ranks):
    for found in (*ranks[1], *ranks[2]):
        scales = {policy: found[policy]["steps"][-1]["scale"] for policy in POLICIES}
        assert scales["mixed_bfloat16"] == 1
        assert scales["mixed_float16"] > 1


def halved(steps):
    """Return the steps, from 1, after which the scale is less."""
    scales = [step["scale"] for step in steps]
    return [i for i, (a, b) in enumerate(itertools.pairwise(scales), 1) if b < a]


def test_a_step_with_an_infinity_on_one_rank_is_skipped_on_both(ranks):
    (single,), both = ranks[1], ranks[2]
    expected = halved(single["huge"]["steps"])
    assert [(step - 1) // STEPS for step in expected] == list(range(EPOCHS)), "once an epoch"
    for found in both:
        steps = found["huge"]["steps"]
        assert halved(steps) == expected
        for number, (before, after) in enumerate(itertools.pairwise(steps), 1):
            is_skipped = number in expected
            assert (after["weights"] == before["weights"]) is is_skipped
            assert after["iterations"] - before["iterations"] == (not is_skipped)
        assert any(b["scale"] > a["scale"] for a, b in itertools.pairwise(steps))
        assert np.isfinite(found["huge"]["loss"]).all()


def test_a_resumed_run_goes_on_with_its_scale(ranks):
    for found in (*ranks[1], *ranks[2]):
        assert len(found["half"]["steps"]) == 1 + STEPS * EPOCHS // 2
        assert found["resumed"]["resumed_from"] == STEPS * EPOCHS // 2
        # what a callback remembers of the first half is part of a checkpoint
        assert found["resumed"]["steps"] == found["huge"]["steps"]

"""`ctx.strategy()` in a loop of the user's own: tf_keras trains in TensorFlow's strategy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from spark_dl.errors import TrainingFailedError
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask
from spark_dl.training.entry import run_rank

SIZE, ROWS, BATCH, EPOCHS = 4, 64, 8, 3
STEPS = ROWS // BATCH
#: one rank gets 6 of them and the other 5: two steps, the second with fewer rows, and not as many
VALIDATION_ROWS, VALIDATION_STEPS = 11, 2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dataset"))
    x = np.random.default_rng(3).normal(size=(ROWS + VALIDATION_ROWS, SIZE)).astype(np.float32)
    y = x.sum(axis=1)
    splits = {"train": {"x": x[:ROWS], "y": y[:ROWS]}, "validation": {"x": x[ROWS:], "y": y[ROWS:]}}
    write_shards(folder, dense_entries(SIZE), splits)
    return folder


def small_model():
    """The same wherever it is made."""
    import tf_keras

    first, second = (tf_keras.initializers.GlorotUniform(seed) for seed in (1, 2))
    model = tf_keras.Sequential(
        [
            tf_keras.Input((SIZE,)),
            tf_keras.layers.Dense(5, "tanh", kernel_initializer=first),
            tf_keras.layers.Dense(1, kernel_initializer=second),
        ]
    )
    model.compile(tf_keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    return model


def weights(model):
    return np.concatenate([np.ravel(array) for array in model.get_weights()]).tolist()


def bare(features, label):
    return features["x"], label


def fit(ctx, model, rows, callbacks=()):
    """Let tf_keras train over this rank's batches of all epochs."""
    model.fit(
        rows,
        epochs=ctx.epochs,
        steps_per_epoch=ctx.steps_per_epoch,
        callbacks=list(callbacks),
        verbose=0,
    )
    return weights(model)


def in_strategy(ctx):
    """What docs/training.md shows; beside it the same on this rank's rows alone."""
    import keras
    import tensorflow as tf
    import tf_keras

    def report(epoch, logs):
        ctx.report((epoch + 1) * ctx.steps_per_epoch, loss=logs["loss"])

    strategy = ctx.strategy()

    def batches(split):
        return strategy.distribute_datasets_from_function(lambda _: ctx.dataset(split).map(bare))

    with strategy.scope():
        model = small_model()
    found = {
        "together": fit(
            ctx,
            model,
            batches("train"),
            [tf_keras.callbacks.LambdaCallback(on_epoch_end=report)],
        ),
        "validated": model.evaluate(batches("validation"), steps=VALIDATION_STEPS, verbose=0)[1],
        "alone": fit(ctx, small_model(), ctx.dataset("train").map(bare)),
        "replicas": strategy.num_replicas_in_sync,
        "keras": [keras.__version__, tf.keras.__version__, tf.keras.Model is keras.Model],
    }
    given = strategy.experimental_distribute_dataset(ctx.dataset("train"))
    labels = [strategy.experimental_local_results(label)[0] for _, label in given]
    found["rows"] = sum(int(label.shape[0]) for label in labels)
    Path(ctx.paths.root, f"rank-{ctx.rank}.json").write_text(json.dumps(found))


def trained(dataset, runs, world_size):
    task = TrainTask(
        train_fn=in_strategy,
        dataset=dataset,
        paths=RunPaths(runs=str(runs), run_id="run"),
        epochs=EPOCHS,
        global_batch_size=BATCH,
        seed=5,
    )
    results = run_ranks(run_rank, task, world_size=world_size)
    root = Path(task.paths.root)
    found = [json.loads((root / f"rank-{n}.json").read_text()) for n in range(world_size)]
    records = [json.loads(line) for line in Path(task.paths.metrics).read_text().splitlines()]
    return found, results[0], records


@pytest.fixture(scope="module")
def two(dataset, tmp_path_factory):
    return trained(dataset, tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def one(dataset, tmp_path_factory):
    return trained(dataset, tmp_path_factory.mktemp("one"), 1)


def test_two_ranks_learn_together_what_one_does(one, two):
    ranks, ((single,), *_) = two[0], one
    assert [found["replicas"] for found in [single, *ranks]] == [1, 2, 2]
    assert ranks[0]["together"] == ranks[1]["together"]
    np.testing.assert_allclose(ranks[0]["together"], single["together"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([found["validated"] for found in ranks], single["validated"], 1e-4)


def test_it_is_not_what_a_rank_learns_of_its_own_half(one, two):
    ranks, ((single,), *_) = two[0], one
    np.testing.assert_allclose(single["alone"], single["together"], rtol=1e-4, atol=1e-5)
    halves = [found["alone"] for found in ranks]
    for a, b in [(halves[0], halves[1]), *((half, ranks[0]["together"]) for half in halves)]:
        assert not np.allclose(a, b, rtol=1e-2, atol=1e-3)


def test_what_it_reports_is_kept(two):
    _, result, records = two
    loss = result["history"]["loss"]
    assert len(loss) == EPOCHS
    assert loss[0] > loss[1] > loss[2]
    assert [(record["step"], record["loss"]) for record in records] == [
        ((epoch + 1) * STEPS, value) for epoch, value in enumerate(loss)
    ]


def test_rows_that_are_a_ranks_own_are_not_shared_out_once_more(two):
    """TensorFlow takes what it is given for the rows of all ranks, and would leave out half."""
    assert [found["rows"] for found in two[0]] == [EPOCHS * ROWS // 2] * 2


def test_keras_3_is_what_it_is_without_tf_keras(two):
    version, of_tensorflow, is_same = two[0][0]["keras"]
    assert version == of_tensorflow
    assert version.startswith("3.")
    assert is_same


def test_its_model_is_not_exported(dataset, tmp_path):
    task = TrainTask(
        train_fn=lambda ctx: small_model(),
        dataset=dataset,
        paths=RunPaths(runs=str(tmp_path), run_id="run"),
        global_batch_size=BATCH,
    )
    with pytest.raises(TrainingFailedError, match=r"returned tf_keras\.\S*\.Sequential, expected"):
        run_ranks(run_rank, task, world_size=1)
    assert not os.path.exists(task.paths.models)

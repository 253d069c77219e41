"""More ranks than a small machine has cores, and nearly nothing to do: they start, train, end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spark_dl.config import CheckpointConfig
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask
from spark_dl.training.checkpoint import CheckpointStore
from spark_dl.training.entry import run_rank

pytestmark = [pytest.mark.long, pytest.mark.timeout(580)]

RANKS = 16
STEPS, EPOCHS = 5, 2


def one_parameter(spec, params):
    import keras

    inputs = keras.Input((1,), name="x")
    output = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, output)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    return model


def train(task, context):
    """Train, and tell what the rank holds in the end."""
    from spark_dl.training import worker

    held = []
    before = worker.export_trained

    def export(model, *rest):
        held.extend(weight.item() for weight in model.get_weights())
        return before(model, *rest)

    worker.export_trained = export
    return {**run_rank(task, context), "held": held}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dataset"))
    x = np.random.default_rng(3).normal(size=(STEPS * RANKS + 24, 1)).astype(np.float32)
    rows = {"x": x, "y": 3 * x[:, 0]}
    parts = {"train": slice(STEPS * RANKS), "validation": slice(STEPS * RANKS, None)}
    splits = {n: {name: column[s] for name, column in rows.items()} for n, s in parts.items()}
    write_shards(folder, dense_entries(1), splits)
    return folder


def trained(dataset, runs, world_size):
    task = TrainTask(
        model_fn=one_parameter,
        dataset=dataset,
        paths=RunPaths(runs=str(runs), run_id=f"of-{world_size}"),
        epochs=EPOCHS,
        global_batch_size=RANKS,
        seed=2,
        checkpoint=CheckpointConfig(),
    )
    return task, run_ranks(train, task, world_size=world_size, timeout_s=500)


def test_sixteen_ranks_learn_what_one_does(dataset, tmp_path):
    task, results = trained(dataset, tmp_path, RANKS)
    _, (alone,) = trained(dataset, tmp_path, 1)
    assert len(results) == RANKS
    assert len({tuple(result["held"]) for result in results}) == 1, "to the bit"
    assert results[0]["held"] == pytest.approx(alone["held"], rel=1e-5)
    for name, values in alone["history"].items():
        assert all(r["history"][name] == pytest.approx(values, rel=1e-4) for r in results)
    assert [bool(r["model_path"]) for r in results] == [True] + [False] * (RANKS - 1)
    record = CheckpointStore(task.paths, task.checkpoint).newest()
    assert (len(record.ranks), record.position.step) == (RANKS, STEPS * EPOCHS)
    records = [json.loads(line) for line in Path(task.paths.metrics).read_text().splitlines()]
    assert [r["split"] for r in records if r["scope"] == "epoch"] == ["train", "validation"] * 2

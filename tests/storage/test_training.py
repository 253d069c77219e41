"""A run on storage that nothing has mounted: dataset, checkpoints, logs and model pass the JVM."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from spark_dl.config import CheckpointConfig, StorageConfig
from spark_dl.errors import TrainingFailedError
from spark_dl.inference import open_model
from spark_dl.shards import Manifest
from spark_dl.storage import RunPaths, Storage, join
from spark_dl.storage.cache import local_copy
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask
from spark_dl.training.checkpoint import CheckpointStore

pytestmark = [pytest.mark.kills, pytest.mark.slow, pytest.mark.timeout(900)]

STEPS_PER_EPOCH = 5
KILLED_AFTER = 7


def network(spec, params):
    import keras

    model = keras.Sequential([keras.Input(spec["x"].shape), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    return model


def train(task, context):
    """Train; where the task says so, the chief is killed after a step whose checkpoint counts."""
    from spark_dl.training import worker

    class Last(worker.Checkpoints):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            step = int(self.model.optimizer.iterations.numpy())
            if context.rank == 0 and step == task.params.get("die_after"):
                self._saver.wait()
                os.kill(os.getpid(), signal.SIGKILL)

    worker.Checkpoints = Last
    return worker.train(task, context)


@pytest.fixture
def task(hadoop_root, tmp_path):
    import numpy as np

    random = np.random.default_rng(1)
    columns = {
        split: {"x": random.normal(size=(n, 4)), "y": random.normal(size=n)}
        for split, n in (("train", 40), ("validation", 11))
    }
    write_shards(str(tmp_path / "dataset"), dense_entries(4), columns, rows_per_record=4)
    folder, root = Storage(str(tmp_path)), join(hadoop_root, "training")
    storage = Storage(root)
    for name in folder.files(str(tmp_path / "dataset")):
        storage.upload(str(tmp_path / "dataset" / name), join(root, "dataset", name))
    return TrainTask(
        model_fn=network,
        dataset=join(root, "dataset"),
        paths=RunPaths(runs=join(root, "runs"), run_id="r"),
        epochs=2,
        global_batch_size=8,
        log_every_steps=1,
        checkpoint=CheckpointConfig(every_steps=1),
        storage=StorageConfig(cache_folder=str(tmp_path / "copies"), cache_gb=1e-3),
    )


def test_a_run_that_is_killed_goes_on_without_a_mount(task, tmp_path, monkeypatch):
    from dataclasses import replace

    storage = Storage(task.paths.root)
    with pytest.raises(TrainingFailedError, match="SIGKILL"):
        run_ranks(train, replace(task, params={"die_after": KILLED_AFTER}), world_size=2)
    assert CheckpointStore(task.paths, task.checkpoint).newest().position.step == KILLED_AFTER
    assert not storage.exists(task.paths.models)

    results = run_ranks(train, task, world_size=2)
    assert results[0]["resumed_from"] == KILLED_AFTER
    lines = [json.loads(line) for line in storage.read_text(task.paths.metrics).splitlines()]
    steps = [line["step"] for line in lines if line["scope"] == "step"]
    assert steps == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    assert [line["split"] for line in lines if line["scope"] == "epoch"] == [
        "train",
        "validation",
    ] * 2
    assert {name.split("/")[0] for name in storage.files(task.paths.events)} == {
        "train",
        "validation",
    }
    # what the ranks share on this host: each shard once, nothing unfinished
    copies = [p for p in Path(task.storage.cache_folder).iterdir() if p.suffix != ".lock"]
    assert len(copies) == 6

    model = open_model(results[0]["model_path"])
    assert model.path == task.paths.model(1)
    monkeypatch.setenv("SPARK_DL_CACHE_DIR", str(tmp_path / "models"))
    with local_copy(model.path, model.checksum) as folder:
        assert "saved_model.pb" in os.listdir(folder)


def test_a_shard_that_is_damaged_is_named(task):
    from spark_dl.training import worker

    storage, shard = Storage(task.dataset), Manifest.read(task.dataset).split("train")[0]
    storage.write_atomic(join(task.dataset, shard.path), b"x" * shard.bytes)
    with pytest.raises(TrainingFailedError, match=rf"\] StorageError: \S+{shard.path} is damaged"):
        run_ranks(worker.train, task, world_size=2)

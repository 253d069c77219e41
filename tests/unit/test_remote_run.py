"""What a rank reads and writes where the storage is not mounted, in one process."""

from __future__ import annotations

import json
import os
import threading
import uuid

import fsspec
import numpy as np
import pytest

from spark_dl.errors import StorageError
from spark_dl.schema import FeatureSpec
from spark_dl.storage import RunPaths, Storage, join
from spark_dl.storage.cache import HostCache, local_copy
from spark_dl.testing import dense_entries, write_shards
from spark_dl.training.data import ShardReader
from spark_dl.training.events import RunLog
from spark_dl.training.export import export_model
from spark_dl.training.rewind import rewind


@pytest.fixture
def remote():
    yield f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def dataset(remote, tmp_path):
    """A dataset here, and the same one on storage that is not mounted."""
    here = str(tmp_path / "dataset")
    rows = np.arange(44, dtype=np.float32).reshape(11, 4)
    manifest = write_shards(here, dense_entries(4), {"train": {"x": rows, "y": rows[:, 0]}})
    storage = Storage(remote)
    for name in Storage(here).files(here):
        storage.upload(os.path.join(here, name), join(remote, "dataset", name))
    return here, join(remote, "dataset"), manifest


def test_shards_give_the_same_rows_wherever_they_lie(dataset, tmp_path):
    here, remote, manifest = dataset
    shards = manifest.split("train")
    numbers = np.arange(11)[::-1]
    cache = HostCache(str(tmp_path / "copies"))
    readers = [ShardReader(here, shards), ShardReader(remote, shards, cache=cache)]
    first, second = (reader.read(numbers) for reader in readers)
    assert first.tolist() == second.tolist()
    assert len(first) == 11


def test_mounted_shards_are_not_copied(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_DL_CACHE_DIR", str(tmp_path / "copies"))
    here, _, manifest = dataset
    ShardReader(here, manifest.split("train"))
    assert not (tmp_path / "copies").exists()


def test_a_remote_shard_that_is_damaged_is_named(dataset, tmp_path):
    _, remote, manifest = dataset
    shard = manifest.split("train")[0]
    Storage(remote).write_atomic(join(remote, shard.path), b"x" * shard.bytes)
    reader = ShardReader(remote, manifest.split("train"), cache=HostCache(str(tmp_path / "copies")))
    with pytest.raises(StorageError, match=rf"{shard.path} is damaged") as raised:
        reader.read(np.arange(11))
    assert reader.failure is raised.value


def test_rows_are_read_before_all_shards_are_copied(dataset, tmp_path):
    here, remote, manifest = dataset
    shards = manifest.split("train")
    others = threading.Event()

    class Slow(HostCache):
        def open(self, path, *, size, checksum):
            if path.endswith(shards[0].path):  # which comes first
                assert others.wait(60)
            return super().open(path, size=size, checksum=checksum)

    reader = ShardReader(remote, shards, cache=Slow(str(tmp_path / "copies")))
    last = np.arange(11 - shards[2].rows, 11)
    whole = ShardReader(here, shards)
    assert reader.read(last).tolist() == whole.read(last).tolist()
    others.set()
    assert reader.read(np.arange(11)).tolist() == whole.read(np.arange(11)).tolist()


def test_a_run_is_logged_on_and_cut_back(remote):
    paths = RunPaths(runs=remote, run_id="r")
    storage = Storage(remote)

    def lines():
        return [json.loads(line)["step"] for line in storage.read_text(paths.metrics).splitlines()]

    with RunLog(paths) as log:
        for step in (1, 2, 3):
            log.write("train", {"loss": 1.0}, epoch=0, step=step, scope="step")
        log.save()
        assert lines() == [1, 2, 3]
    rewind(paths, 2)
    assert lines() == [1, 2]
    with RunLog(paths) as log:
        log.write("train", {"loss": 0.5}, epoch=0, step=3, scope="step")
    assert lines() == [1, 2, 3]
    assert len(storage.files(paths.events)) == 2


# Keras' own, when it saves
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_a_model_is_exported_and_copied_back(remote, tmp_path, monkeypatch):
    import keras
    import tensorflow as tf

    monkeypatch.setenv("SPARK_DL_CACHE_DIR", str(tmp_path / "copies"))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    spec = FeatureSpec(entries=dense_entries(4))
    folder = export_model(model, spec, join(remote, "model", "1"), run_id="r")
    told = json.loads(Storage(folder).read_bytes(join(folder, "model.json")))
    with local_copy(folder, told["checksum"]) as copy:
        loaded = tf.saved_model.load(copy)
        given = loaded.signatures["serving_default"](x=tf.ones((1, 4)))
    assert np.allclose(next(iter(given.values())), model(np.ones((1, 4))))
    with pytest.raises(StorageError, match="is there already"):
        export_model(model, spec, folder, run_id="r")


def test_the_graph_of_a_sequential_model_is_logged(tmp_path):
    import keras

    paths = RunPaths(runs=str(tmp_path), run_id="r")
    with RunLog(paths) as log:
        log.write_graph(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    (events,) = Storage(paths.events).files(paths.events)
    assert b"MatMul" in Storage(paths.events).read_bytes(join(paths.events, events))

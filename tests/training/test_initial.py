"""Starting from an earlier model's weights."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest

from spark_dl.config import CheckpointConfig
from spark_dl.errors import ConfigError, StorageError
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask
from spark_dl.training.entry import run_rank
from spark_dl.training.initial import load_initial

pytestmark = [
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
]

SIZE = 3


def network(width=5, *, frozen=False):
    inputs = keras.Input((SIZE,), name="x")
    hidden = keras.layers.Dense(width, activation="relu", trainable=not frozen)(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, name="y")(hidden))


def frozen_below(spec, params):
    model = network(frozen=True)
    model.compile(optimizer="sgd", loss="mse")
    return model


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    model = network()
    folder = tmp_path_factory.mktemp("earlier")
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    return model, folder


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_weights_come_from_both_kinds_of_files(earlier, name):
    model, folder = earlier
    other = network()
    load_initial(other, str(folder / name))
    for mine, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("other", [lambda: keras.optimizers.SGD(0.01, 0.9), keras.optimizers.Adam])
def test_the_optimizer_begins_anew(tmp_path, other):
    model = network()
    model.compile(optimizer=keras.optimizers.SGD(0.5, 0.9), loss="mse")
    model.fit(np.ones((8, SIZE)), np.ones((8, 1)), batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    later = network()
    later.compile(optimizer=other(), loss="mse")
    later.optimizer.build(later.trainable_variables)
    before = [variable.numpy() for variable in later.optimizer.variables]
    load_initial(later, str(tmp_path / "model.keras"))
    for variable, value in zip(later.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    for mine, theirs in zip(later.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_file_that_does_not_fit_is_refused(earlier, tmp_path):
    _, folder = earlier
    with pytest.raises(ConfigError, match=r"init_from: the weights in .*model\.keras do not fit"):
        load_initial(network(width=6), str(folder / "model.keras"))
    (tmp_path / "other.keras").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"other\.keras do not fit the model"):
        load_initial(network(), str(tmp_path / "other.keras"))
    with pytest.raises(StorageError, match="nothing"):
        load_initial(network(), str(tmp_path / "nothing.keras"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dataset"))
    x = np.random.default_rng(3).normal(size=(40, SIZE)).astype(np.float32)
    write_shards(folder, dense_entries(SIZE), {"train": {"x": x, "y": x.sum(axis=1)}})
    return folder


def test_all_ranks_start_from_them_and_frozen_layers_stay(earlier, dataset, tmp_path):
    model, folder = earlier
    task = TrainTask(
        model_fn=frozen_below,
        dataset=dataset,
        paths=RunPaths(runs=str(tmp_path), run_id="warm"),
        global_batch_size=10,
        init_from=str(folder / "model.keras"),
        checkpoint=CheckpointConfig(),
    )
    result = run_ranks(run_rank, task, world_size=2)[0]
    trained = keras.saving.load_model(os.path.join(result["model_path"], "model.keras"))
    before, after = model.get_weights(), trained.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[2] - after[2]).max() > 0

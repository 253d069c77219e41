"""From a table to predictions, with the GPU that Spark gives to tasks."""

from __future__ import annotations

import numpy as np
import pytest

import spark_dl
from spark_dl.testing import run_ranks

pytestmark = [pytest.mark.gpu, pytest.mark.cluster, pytest.mark.timeout(900)]

ROWS, SIZE = 600, 8


def on_its_gpu(spec, params):
    """A model that refuses to be made where there is no GPU."""
    import keras
    import tensorflow as tf

    if len(tf.config.list_logical_devices("GPU")) != 1:
        message = "no GPU of its own"
        raise RuntimeError(message)
    inputs = keras.Input((SIZE,), name="x")
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss="binary_crossentropy")
    return model


def keras_says(value, context):
    """Return what Keras predicts in main memory."""
    import keras

    path, rows = value
    model = keras.saving.load_model(f"{path}/model.keras")
    return {"predictions": model.predict(np.array(rows), verbose=0).ravel().tolist()}


@pytest.mark.parametrize("backend", ["barrier", "tensorflowonspark"])
def test_a_table_is_learnt_and_scored_on_the_gpu(gpu_spark, tmp_path, backend):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(ROWS, SIZE)).astype(np.float32)
    rows = [(i, values.tolist(), float(values.sum() > 0)) for i, values in enumerate(x)]
    table = gpu_spark.createDataFrame(rows, "id int, x array<float>, y float")
    dataset = spark_dl.prepare(
        table,
        features={"x": spark_dl.Feature("x", shape=(SIZE,))},
        label="y",
        path=str(tmp_path / "dataset"),
    )
    run = spark_dl.train(
        on_its_gpu,
        dataset,
        num_workers=1,
        epochs=5,
        global_batch_size=32,
        runs=str(tmp_path / "runs"),
        backend=backend,
        tensorboard=False,
        config={"cluster": {"gpus_per_worker": 1}},
    )
    loss = run.history["loss"]
    assert loss[-1] < loss[0]
    # two tasks at once, which share the GPU
    scored = spark_dl.predict(table.repartition(2), run.model_path).orderBy("id").collect()
    found = [row.prediction for row in scored]
    (expected,) = run_ranks(keras_says, (run.model_path, x.tolist()), world_size=1)
    np.testing.assert_allclose(found, expected["predictions"], atol=2e-3)


def save_model(value, context):
    """Make a model where no GPU is, and return what it predicts there."""
    import keras

    path, _ = value
    model = keras.Sequential([keras.Input((SIZE,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.save(f"{path}/model.keras")
    return keras_says(value, context)


def score(value, context):
    """Score as a task of Spark does that was given this GPU."""
    import tensorflow as tf

    from spark_dl.inference.loading import Compute, ModelFile, load_model

    path, rows = value
    file = ModelFile(path=f"{path}/model.keras", checksum="of-the-test", kind="keras")
    model = load_model(file, Compute(num_threads=1, gpus=(0,)))
    (name,) = model.inputs
    (found,) = [model.run({name: np.array(rows, np.float32)}) for _ in range(20)][-1].values()
    gpu = tf.config.list_physical_devices("GPU")[0]
    return {
        "found": found.ravel().tolist(),
        "grows": tf.config.experimental.get_memory_growth(gpu),
        "peak": tf.config.experimental.get_memory_info("GPU:0")["peak"],
    }


def test_two_processes_score_on_one_gpu(gpu, tmp_path):
    rows = np.random.default_rng(2).normal(size=(100, SIZE)).tolist()
    (expected,) = run_ranks(save_model, (str(tmp_path), rows), world_size=1)
    found = run_ranks(score, (str(tmp_path), rows), world_size=2, gpus="0")
    for one in found:
        assert one["grows"]
        assert one["peak"] > 0
        np.testing.assert_allclose(one["found"], expected["predictions"], atol=1e-2)

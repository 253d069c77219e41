"""Models that an older Keras saved, scored by the one that is installed here."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import textwrap

import numpy as np
import pytest
from clusters.environment import cache_lock, digest, made, run

from spark_dl.inference import predict

pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

#: The oldest that pyproject.toml takes.
OLD = "keras==3.10.0"
ROWS = 20
SAVE = """
    import json, sys
    import keras
    import numpy as np

    keras.utils.set_random_seed(1)
    layers = keras.layers
    x = keras.Input((3,), name="x")
    word = keras.Input((), name="word", dtype="string")
    known = layers.Embedding(4, 2)(layers.StringLookup(vocabulary=["a", "b"])(word))
    scaled = layers.Normalization(mean=1.0, variance=2.0)(x)
    hidden = layers.BatchNormalization()(layers.Dense(5, "gelu")(scaled))
    both = layers.Concatenate()([hidden, known])
    model = keras.Model({"x": x, "word": word}, layers.Dense(2, "softmax")(both))
    model.save(sys.argv[1] + "/old.keras")
    model.export(sys.argv[1] + "/old", verbose=False)
    rows = int(sys.argv[2])
    import tensorflow as tf

    values = np.arange(rows * 3, dtype="float32").reshape(rows, 3) / 10
    words = tf.constant([["a", "b", "c"][i % 3] for i in range(rows)])
    found = model.predict({"x": values, "word": words}, verbose=0)
    print(json.dumps({"keras": keras.__version__, "predictions": found.tolist()}))
"""


@pytest.fixture(scope="module")
def old_keras():
    """The folder of an older Keras, for PYTHONPATH."""
    with cache_lock("old-keras") as folder:
        pins = digest(OLD.encode(), sys.version.encode())
        target = folder / "packages"
        if not made(folder / "pins", pins):
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps")
            run(*pip, "--target", str(target), OLD)
            (folder / "pins").write_text(pins)
        return target


@pytest.fixture(scope="module")
def saved(old_keras, tmp_path_factory):
    """The folder of the models, and what they predict where they were made."""
    folder = tmp_path_factory.mktemp("saved")
    command = (sys.executable, "-c", textwrap.dedent(SAVE), folder, str(ROWS))
    said = run(*command, env={**os.environ, "PYTHONPATH": str(old_keras)}, timeout_s=600)
    told = json.loads(said.splitlines()[-1])
    assert told["keras"] == OLD.partition("==")[2] != importlib.metadata.version("keras")
    return folder, np.array(told["predictions"])


@pytest.mark.parametrize("name", ["old.keras", "old"])
def test_an_older_keras_s_model_predicts_as_it_did_there(spark, saved, name):
    folder, expected = saved
    df = spark.range(0, ROWS, 1, 2).selectExpr(
        "id",
        "array(float(id * 3) / 10, float(id * 3 + 1) / 10, float(id * 3 + 2) / 10) x",
        "substring('abc', int(id % 3) + 1, 1) word",
    )
    rows = predict(df, folder / name).orderBy("id").collect()
    found = np.array([row["prediction"] for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)

"""A run that begins with another's weights, and a loop of the user's own, on two executors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import spark_dl
from spark_dl.storage import JobStatus, RunPaths

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROWS, BATCH = 200, 20
NEW = "id >= 120"


def linear(spec, params):
    import keras

    inputs = keras.Input((), name="a")
    output = keras.layers.Dense(1, name="y")(keras.layers.Reshape((1,))(inputs))
    model = keras.Model(inputs, output)
    model.compile(optimizer=keras.optimizers.SGD(params.get("rate", 0.05)), loss="mse")
    return model


def descend(ctx):
    """One weight by hand; the sum of the ranks' numbers says that all of them are there."""
    import tensorflow as tf

    weight = tf.Variable(0.0)
    for step, (features, y) in enumerate(ctx.dataset(), 1):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((weight * features["a"] - y) ** 2)
        (gradient,) = ctx.all_reduce([tape.gradient(loss, weight)])
        weight.assign_sub(0.3 * gradient)
        (there,) = ctx.all_reduce([tf.constant(ctx.rank + 1)], "sum")
        ctx.report(step, loss=loss, there=there, weight=weight)


@pytest.fixture(scope="module")
def frame(cluster_spark):
    return cluster_spark.range(0, ROWS, 1, 2).selectExpr(
        "id", "cast(sin(id) as float) as a", "cast(2 * sin(id) as float) as y"
    )


@pytest.fixture(scope="module")
def prepare(frame, tmp_path_factory):
    def run(where):
        path = str(tmp_path_factory.mktemp("dataset") / "linear")
        return spark_dl.prepare(
            frame.where(where), features=["a"], label="y", id="id", path=path, seed=7
        )

    return run


@pytest.fixture
def train(tmp_path):
    def run(model_fn, dataset, **settings):
        return spark_dl.train(
            model_fn,
            dataset,
            num_workers=2,
            global_batch_size=BATCH,
            runs=tmp_path / "runs",
            backend="barrier",
            tensorboard=False,
            **settings,
        )

    return run


def kernel(run):
    import keras

    return keras.saving.load_model(Path(run.model_path, "model.keras")).get_weights()[0].item()


@pytest.mark.long
def test_a_run_on_new_rows_begins_with_an_earlier_one_and_says_so(train, prepare, tmp_path):
    old, new = prepare(f"not {NEW}"), prepare(NEW)
    earlier = train(linear, old, epochs=6, run_id="earlier")
    # steps of nothing: what it ends with is what it began with
    later = train(
        linear, new, epochs=1, run_id="later", init_from="earlier", params={"rate": 1e-30}
    )
    assert kernel(later) == kernel(earlier)
    weights = os.path.join(earlier.model_path, "model.keras")
    told = json.loads(Path(later.model_path, "model.json").read_text())
    assert (told["run_id"], told["init_from"]) == ("later", weights)
    assert told["dataset_fingerprint"] == new.manifest.fingerprint
    first = json.loads(Path(earlier.model_path, "model.json").read_text())
    assert (first["init_from"], first["dataset_fingerprint"]) == ("", old.manifest.fingerprint)
    status = JobStatus.read(RunPaths(runs=str(tmp_path / "runs"), run_id="later").status)
    assert status.attempt == 1, "it is no resume"


def test_a_loop_of_ones_own(train, prepare, tmp_path):
    run = train(None, prepare("true"), train_fn=descend, epochs=4, run_id="own")
    steps = len(run.history["loss"])
    assert set(run.history["there"]) == {3.0}
    assert run.history["weight"][-1] == pytest.approx(2, abs=0.1)
    assert run.model_path in ("", None)
    paths = RunPaths(runs=str(tmp_path / "runs"), run_id="own")
    records = [json.loads(line) for line in Path(paths.metrics).read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, steps + 1))
    status = JobStatus.read(paths.status)
    assert (status.status, status.metrics["there"]) == ("succeeded", 3.0)
    assert np.isfinite(run.history["loss"]).all()

"""From table to predictions on two executors, whichever versions are installed here."""

from __future__ import annotations

import pytest

import spark_dl
from spark_dl._jvm import delta_jars

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]

ROWS = 300


def linear(spec, params):
    import keras

    inputs = {feature.name: keras.Input((), name=feature.name) for feature in spec.features}
    columns = [keras.layers.Reshape((1,))(tensor) for tensor in inputs.values()]
    output = keras.layers.Dense(1, name="y")(keras.layers.Concatenate()(columns))
    model = keras.Model(inputs, output)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    return model


@pytest.fixture(scope="module")
def table_format():
    """Delta, where there is a release for this Spark."""
    return "delta" if delta_jars() else "parquet"


@pytest.fixture(scope="module")
def table(cluster_spark, table_format, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("table") / "rows")
    rows = cluster_spark.range(0, ROWS, 1, 3).selectExpr(
        "id", "cast(sin(id) as float) as a", "cast(2 * sin(id) + 1 as float) as y"
    )
    rows.write.format(table_format).save(path)
    return cluster_spark.read.format(table_format).load(path)


def test_driver_and_executors_have_it_from_the_wheel(cluster_spark):
    def where_ours_is(batches):  # here: executors cannot import this module
        import pyarrow as pa

        import spark_dl

        for _ in batches:
            yield pa.RecordBatch.from_pydict({"file": [spark_dl.__file__]})

    executors = cluster_spark.range(1).mapInArrow(where_ours_is, "file string").first().file
    assert executors == spark_dl.__file__
    assert "/site-packages/spark_dl/" in executors


@pytest.mark.parametrize("backend", ["barrier", "tensorflowonspark"])
def test_table_to_predictions(table, table_format, cluster_spark, tmp_path, backend):
    dataset = spark_dl.prepare(
        table, features=["a"], label="y", id="id", path=str(tmp_path / "dataset"), seed=7
    )
    assert sum(dataset.manifest.totals.values()) == ROWS
    run = spark_dl.train(
        linear,
        dataset,
        backend=backend,
        num_workers=2,
        global_batch_size=20,
        epochs=2,
        seed=1,
        tensorboard=False,
        runs=tmp_path / "runs",
    )
    assert run.history["loss"][1] < run.history["loss"][0]
    scored = spark_dl.predict(table, run.model_path)
    output = str(tmp_path / "predictions")
    scored.write.format(table_format).save(output)
    found = cluster_spark.read.format(table_format).load(output).collect()
    assert len(found) == ROWS
    kernel = found[1].prediction - found[0].prediction
    assert kernel / (found[1].a - found[0].a) == pytest.approx(
        (found[2].prediction - found[0].prediction) / (found[2].a - found[0].a), rel=1e-3
    )

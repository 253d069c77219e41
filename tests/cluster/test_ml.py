"""Spark ML around our estimators, with real trainings on two executors."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml.evaluation import MulticlassClassificationEvaluator, RegressionEvaluator
from pyspark.ml.tuning import CrossValidatorModel, ParamGridBuilder, TrainValidationSplit

from spark_dl.ml import KerasClassificationModel, KerasEstimator, KerasRegressor
from spark_dl.shards import Manifest

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = 240
EXAMPLE = Path(__file__).parents[2] / "examples" / "tabular"
#: Loads what another process saved, scores, and prints the predictions.
LOAD = """
import json, sys
from pyspark.ml.tuning import CrossValidatorModel, ParamGridBuilder, TrainValidationSplit
from spark_dl.session import embedded_session

with embedded_session("local[1]") as spark:
    model = CrossValidatorModel.load(sys.argv[1])
    scored = model.transform(spark.read.parquet(sys.argv[2])).orderBy("id")
    rows = scored.select("probability", "prediction").collect()
    print(json.dumps([[*row.probability, row.prediction] for row in rows]))
"""


@pytest.fixture(scope="module")
def frame(cluster_spark):
    """Two numbers, and one that grows with them."""
    return cluster_spark.range(0, ROWS, 1, 2).selectExpr(
        "id",
        "sin(id) * 10 as a",
        "cos(id * 0.7) as b",
        "2 * sin(id) - cos(id * 0.7) as y",
        "id % 4 = 0 as held_out",
        "1 + id % 3 as importance",
    )


@pytest.fixture
def storage(tmp_path):
    return {"runsPath": str(tmp_path / "runs"), "datasetPath": str(tmp_path / "datasets")}


def two_inputs(spec, params):
    import keras

    inputs = {feature.name: keras.Input((), name=feature.name) for feature in spec.features}
    columns = [keras.layers.Reshape((1,))(tensor) for tensor in inputs.values()]
    output = keras.layers.Dense(1, name="y")(keras.layers.Concatenate()(columns))
    model = keras.Model(inputs, output)
    model.compile(keras.optimizers.SGD(params["rate"]), loss="mse")
    return model


@pytest.fixture
def example(cluster_spark, monkeypatch):
    """The module of the example, with its model where driver and executors can import it."""
    pytest.importorskip("sklearn", reason="the extra `demo` is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    cluster_spark.sparkContext.addPyFile(str(EXAMPLE / "tabular_model.py"))
    spec = importlib.util.spec_from_file_location("tabular_example", EXAMPLE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_cross_validation_of_a_pipeline_saved_and_loaded_elsewhere(
    cluster_spark, example, tmp_path
):
    frame = example.tumours(cluster_spark).cache()
    tuned = example.tune(frame, str(tmp_path))
    assert tuned.avgMetrics[1] > tuned.avgMetrics[0]
    best = tuned.bestModel.stages[-1]
    assert isinstance(best, KerasClassificationModel)
    assert (best.numClasses, best.numFeatures) == (2, 30)
    assert len(best.history["loss"]) == 12
    # five trainings; two trials of a fold share its rows
    assert len(os.listdir(tmp_path / "runs")) == 5
    assert len(os.listdir(tmp_path / "datasets")) == 3

    scored = tuned.transform(frame)
    assert scored.columns[: len(frame.columns)] == frame.columns
    assert MulticlassClassificationEvaluator(metricName="accuracy").evaluate(scored) > 0.9
    rows = scored.orderBy("id").select("probability", "prediction").collect()
    expected = np.array([[*row.probability, row.prediction] for row in rows])

    saved, table = str(tmp_path / "saved"), str(tmp_path / "table")
    tuned.write().overwrite().save(saved)
    frame.write.parquet(table)
    frame.unpersist()
    done = subprocess.run(
        [sys.executable, "-c", LOAD, saved, table],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-6, atol=1e-6)
    again = CrossValidatorModel.load(saved)
    assert again.bestModel.stages[-1].history == best.history
    assert again.getEstimator().getStages()[-1].getModelFn() == "tabular_model:build"


def test_the_guide_shows_the_example():
    guide = (EXAMPLE.parents[1] / "docs" / "ml.md").read_text()
    shown = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(shown) == 2
    for block, name in zip(shown, ("run.py", "tabular_model.py"), strict=True):
        lines = [
            line.partition("#")[0].strip() for line in (EXAMPLE / name).read_text().split("\n")
        ]
        for line in block.replace("tuned = Cross", "return Cross").splitlines():
            assert line.partition("#")[0].strip() in lines


def test_rows_held_out_by_a_column_are_validated_on_and_nothing_else(frame, storage):
    regressor = KerasRegressor(
        featuresCols=["a", "b"],
        labelCol="y",
        weightCol="importance",
        validationIndicatorCol="held_out",
        idCol="id",
        epochs=8,
        globalBatchSize=12,
        modelParams={"hiddenLayers": [8], "learningRate": 0.03},
        **storage,
    )
    model = regressor.fit(frame)
    (name,) = os.listdir(storage["datasetPath"])
    manifest = Manifest.read(os.path.join(storage["datasetPath"], name))
    assert manifest.totals == {"train": ROWS * 3 // 4, "validation": ROWS // 4}
    assert (model.numFeatures, model.getFeaturesCols()) == (2, ["a", "b"])
    scored = model.transform(frame)
    assert dict(scored.dtypes)["prediction"] == "double"
    evaluator = RegressionEvaluator(labelCol="y", metricName="mae")
    held_out = evaluator.evaluate(scored.where("held_out"))
    assert held_out < 0.5
    assert model.metrics["val_mae"] == pytest.approx(held_out, rel=1e-4)
    figures = model.evaluate(frame.where("held_out"))
    assert figures.rows == ROWS // 4
    for name, value in figures.metrics.items():
        assert model.metrics[f"val_{name}"] == pytest.approx(value, rel=1e-5)


@pytest.mark.long
def test_fits_of_several_param_maps_are_iterated_in_any_order(frame, storage):
    estimator = KerasRegressor(
        featuresCols=["a", "b"], labelCol="y", globalBatchSize=20, numWorkers=1, **storage
    )
    grid = [{estimator.epochs: 1}, {estimator.epochs: 3}]
    fitted = dict(estimator.fitMultiple(frame, grid))
    assert {index: len(model.history["loss"]) for index, model in fitted.items()} == {0: 1, 1: 3}
    assert {model.uid for model in fitted.values()} == {estimator.uid}
    both = estimator.fit(frame, grid)
    assert [len(model.history["loss"]) for model in both] == [1, 3]
    assert not estimator.isSet(estimator.epochs)


@pytest.mark.long
def test_trials_that_want_all_slots_take_turns(frame, storage):
    estimator = KerasEstimator(
        modelFn=two_inputs, featuresCols=["a", "b"], labelCol="y", globalBatchSize=20, **storage
    )
    grid = ParamGridBuilder().addGrid(estimator.modelParams, [{"rate": 1e-9}, {"rate": 0.01}])
    tuned = TrainValidationSplit(
        estimator=estimator,
        estimatorParamMaps=grid.build(),
        evaluator=RegressionEvaluator(labelCol="y"),
        parallelism=2,
        collectSubModels=True,
        seed=1,
    ).fit(frame)
    still, moved = tuned.subModels
    assert still.metrics["loss"] > moved.metrics["loss"]
    assert tuned.validationMetrics[0] > tuned.validationMetrics[1]
    assert dict(tuned.transform(frame).dtypes)["prediction"] == "float"
    assert len(os.listdir(storage["datasetPath"])) == 2

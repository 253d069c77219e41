"""Params, columns, files and outputs of our Spark ML classes, without a training."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.classification import ProbabilisticClassificationModel
from pyspark.ml.feature import StringIndexer, VectorAssembler
from pyspark.ml.linalg import Vectors
from pyspark.ml.regression import RegressionModel
from pyspark.sql import functions as sf

from spark_dl.errors import ConfigError, DataError, ModelError, SchemaError
from spark_dl.ml import (
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressionModel,
    KerasRegressor,
)
from spark_dl.ml.probabilities import predicted, probabilities, raw_predictions
from spark_dl.ml.rows import MlColumns, measured, select_rows, with_label
from spark_dl.schema import FeatureSpec, SpecEntry
from spark_dl.training.export import export_model

pytestmark = [
    pytest.mark.spark,
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = 30


def model_fn(spec, params):
    """Be a function with a name."""


@pytest.fixture(scope="module")
def frame(spark):
    df = spark.range(0, ROWS, 1, 2).selectExpr(
        "id",
        "sin(id) as a",
        "cos(id) as b",
        "array(sin(id), cos(id)) as pair",
        "cast(id % 3 as double) as label",
        "if(id % 2 = 0, 'x', 'y') as text",
        "id % 5 = 0 as held_out",
    )
    return VectorAssembler(inputCols=["a", "b"], outputCol="features").transform(df)


def _export(folder, units, activation=None):
    import keras

    keras.utils.set_random_seed(1)
    entry = SpecEntry(
        name="features", column="features", dtype="float32", shape=(2,), source_type="array<float>"
    )
    inputs = {"features": keras.Input((2,), name="features")}
    output = keras.layers.Dense(units, activation=activation)(inputs["features"])
    model = keras.Model(inputs, output)
    path = export_model(model, FeatureSpec(entries=(entry,)), str(folder), run_id="run-1")
    points = np.array([[np.sin(i), np.cos(i)] for i in range(ROWS)], "float32")
    return SimpleNamespace(path=path, outputs=model.predict(points, verbose=0))


@pytest.fixture(scope="module")
def logits(tmp_path_factory):
    """A model that gives three logits."""
    return _export(tmp_path_factory.mktemp("logits") / "1", 3)


@pytest.fixture(scope="module")
def number(tmp_path_factory):
    """A model that gives one number in (0, 1)."""
    return _export(tmp_path_factory.mktemp("number") / "1", 1, "sigmoid")


def _collected(df, column):
    return np.array([row[column] for row in df.orderBy("id").select(column).collect()])


# --- params -----------------------------------------------------------------------------------


def test_params_are_explained_and_set_as_pyspark_does_it():
    estimator = KerasEstimator(modelFn=model_fn, epochs=3).setGlobalBatchSize(64)
    told = estimator.explainParams()
    assert "epochs: passes over the training rows (>= 1) (default: 1, current: 3)" in told
    assert "globalBatchSize: " in told
    assert estimator.getGlobalBatchSize() == 64
    assert estimator.setParams(epochs=4).getEpochs() == 4
    for param in estimator.params:
        setter = "set" + param.name[0].upper() + param.name[1:]
        assert callable(getattr(estimator, setter)), setter
        assert callable(getattr(estimator, setter.replace("set", "get", 1)))


def test_a_copy_is_independent_and_keeps_its_uid():
    estimator = KerasEstimator(modelFn=model_fn, epochs=3)
    other = estimator.copy({estimator.epochs: 9})
    assert (other.uid, other.getEpochs(), estimator.getEpochs()) == (estimator.uid, 9, 3)
    other.setEpochs(11)
    assert estimator.getEpochs() == 3


def test_a_model_s_copy_keeps_what_is_no_param(number):
    model = KerasRegressionModel(number.path, "run-1", {"loss": [2.0, 1.0]})
    other = model.copy({model.predictionCol: "guess"})
    assert (other.modelPath, other.runId, other.metrics) == (number.path, "run-1", {"loss": 1.0})
    assert (other.getPredictionCol(), model.getPredictionCol()) == ("guess", "prediction")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epoch": 3}, ConfigError, "KerasEstimator: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"epochs": "many"}, TypeError, "Could not convert"),
        ({"modelFn": "no name"}, TypeError, "expected a function or 'package.module:function'"),
        ({"modelParams": [1]}, TypeError, "expected a dict with text keys, got [1]"),
    ],
)
def test_bad_params(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        KerasEstimator(**arguments)


# --- what cannot be fitted --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params", "error", "message"),
    [
        (KerasEstimator, {}, ConfigError, "has no modelFn: set it to a function"),
        (
            KerasRegressor,
            {"featuresCol": "a", "featuresCols": ["a"]},
            ConfigError,
            "both featuresCol='a' and featuresCols=['a'] are set",
        ),
        (KerasRegressor, {"featuresCols": ["a", "a"]}, ConfigError, "each once"),
        (
            KerasRegressor,
            {"featuresCol": "feature"},
            SchemaError,
            "feature column 'feature' is not in the table; did you mean 'features'?",
        ),
        (
            KerasRegressor,
            {"labelCol": "lable"},
            SchemaError,
            "label column 'lable' is not in the table; did you mean 'label'?",
        ),
        (
            KerasRegressor,
            {"labelCol": "text"},
            SchemaError,
            "label column 'text' is string, expected a number: index texts with StringIndexer",
        ),
        (
            KerasRegressor,
            {"featuresCols": ["a", "label"]},
            SchemaError,
            "column 'label' is used as feature and label",
        ),
        (
            KerasRegressor,
            {"validationIndicatorCol": "id"},
            SchemaError,
            "validation indicator column 'id' is bigint, expected boolean",
        ),
        (KerasRegressor, {"weightCol": "w"}, SchemaError, "weight column 'w' is not in the table"),
        (
            KerasClassifier,
            {"labelCol": "a"},
            DataError,
            "rows hold no class (such as ",
        ),
        (
            KerasClassifier,
            {"numClasses": 2},
            DataError,
            "label column 'label' holds 2, but there are 2 classes, 0 to 1",
        ),
        (KerasClassifier, {"thresholds": [0.5, 0.5]}, ConfigError, "expected 3 numbers"),
    ],
)
def test_what_cannot_be_fitted(frame, tmp_path, kind, params, error, message):
    paths = {"runsPath": str(tmp_path / "runs"), "datasetPath": str(tmp_path / "datasets")}
    with pytest.raises(error, match=re.escape(message)):
        kind(**params, **paths).fit(frame)
    assert os.listdir(tmp_path) == []


def test_a_table_without_rows(frame, tmp_path):
    with pytest.raises(DataError, match="no rows"):
        KerasClassifier(datasetPath=str(tmp_path)).fit(frame.where("id < 0"))


# --- columns ----------------------------------------------------------------------------------


def test_features_get_the_shapes_that_their_rows_have(spark, frame):
    vectors = spark.createDataFrame(
        [(Vectors.dense(1, 2, 3), [1.0], 1.0), (Vectors.sparse(3, [1], [5]), [1.0, 2.0], 0.0)],
        ["sparse", "ragged", "label"],
    )
    columns = MlColumns(features=("sparse", "ragged"), label="label", label_type="int")
    with select_rows(vectors, columns) as rows:
        features = measured(vectors, rows, columns.features)
        assert dict(with_label(rows, columns).dtypes) == {
            "sparse": "array<float>",
            "ragged": "array<double>",
            "label": "int",
        }
        assert [row.sparse for row in rows.collect()] == [[1, 2, 3], [0, 5, 0]]
    assert features["sparse"].shape == (3,)
    assert features["ragged"] == "ragged"
    columns = MlColumns(features=("features", "pair", "a"), label="label")
    with select_rows(frame, columns) as rows:
        features = measured(frame, rows, columns.features)
    assert (features["features"].shape, features["pair"].shape, features["a"]) == ((2,), (2,), "a")


def test_vectors_of_several_lengths(spark):
    rows = [(Vectors.dense(1), 1.0), (Vectors.dense(1, 2), 0.0)]
    frame = spark.createDataFrame(rows, ["features", "label"])
    with pytest.raises(DataError, match="its vectors have 1 to 2 elements"):
        KerasRegressor().fit(frame)


# --- outputs ----------------------------------------------------------------------------------


def test_logits_become_raw_predictions_probabilities_and_classes(frame, logits):
    model = KerasClassificationModel(logits.path).setFromLogits(True)
    assert isinstance(model, ProbabilisticClassificationModel)
    assert (model.numClasses, model.numFeatures) == (3, 2)
    scored = model.transform(frame).cache()
    assert scored.columns == [*frame.columns, "rawPrediction", "probability", "prediction"]
    assert scored.schema["features"] == frame.schema["features"]
    rows = scored.orderBy("id").collect()
    raw = np.vstack([row.rawPrediction.toArray() for row in rows])
    np.testing.assert_allclose(raw, logits.outputs, rtol=1e-5, atol=1e-6)
    softmax = np.exp(logits.outputs) / np.exp(logits.outputs).sum(axis=1, keepdims=True)
    found = np.vstack([row.probability.toArray() for row in rows])
    np.testing.assert_allclose(found, softmax, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(_collected(scored, "prediction"), softmax.argmax(axis=1))
    scored.unpersist()


def test_one_number_is_the_probability_of_class_1(frame, number):
    model = KerasClassificationModel(number.path).setThresholds([0.2, 0.8])
    model.setRawPredictionCol("").setProbabilityCol("p")
    scored = model.transform(frame)
    assert scored.columns == [*frame.columns, "p", "prediction"]
    rows = scored.orderBy("id").select("p", "prediction").collect()
    ones = number.outputs[:, 0]
    np.testing.assert_allclose([row.p[1] for row in rows], ones, rtol=1e-5)
    np.testing.assert_allclose([row.p[0] for row in rows], 1 - ones, rtol=1e-5)
    assert [row.prediction for row in rows] == [float(p > 0.8) for p in ones]


def test_one_vector_at_a_time(spark, number):
    point = Vectors.dense(0.0, 1.0)
    regressor, classifier = (
        kind(number.path) for kind in (KerasRegressionModel, KerasClassificationModel)
    )
    assert isinstance(regressor, RegressionModel)
    assert regressor.predict(point) == pytest.approx(number.outputs[0, 0])
    assert classifier.predictProbability(point)[1] == pytest.approx(number.outputs[0, 0])
    with pytest.raises(ModelError, match="takes 2 features, got 3"):
        regressor.predict(Vectors.dense(1, 2, 3))


def test_the_class_of_the_largest_p_over_t(spark):
    cases = [
        ([0.2, 0.5, 0.3], None, 1.0),
        ([0.4, 0.4, 0.2], None, 0.0),
        ([0.2, 0.5, 0.3], [0.1, 0.5, 0.5], 0.0),
        ([0.2, 0.5, 0.3], [0.5, 0.5, 0.0], 2.0),
        ([0.2, 0.8, 0.0], [0.5, 0.5, 0.0], 1.0),
    ]
    classes = [
        predicted(sf.array(*map(sf.lit, values)), thresholds) for values, thresholds, _ in cases
    ]
    assert list(spark.range(1).select(*classes).first()) == [expected for *_, expected in cases]


def test_extreme_logits_give_probabilities(spark):
    kinds = ({"is_scalar": True}, {"is_scalar": False})
    columns = [
        probabilities(raw_predictions(logit, **kind, is_logits=True), **kind, is_logits=True)
        for value in (-800.0, 0.5, 800.0)
        for logit, kind in zip(
            (sf.lit(value), sf.array(sf.lit(value), sf.lit(0.0))), kinds, strict=True
        )
    ]
    found = list(spark.range(1).select(*columns).first())
    for one, two in zip(found[::2], found[1::2], strict=True):
        assert one[0] == pytest.approx(two[1])
        assert sum(one) == pytest.approx(1)


def test_a_model_takes_its_features_from_another_column(frame, number):
    expected = _collected(KerasModel(number.path).transform(frame), "prediction")
    other = frame.withColumnRenamed("features", "point").withColumn("features", sf.lit("a text"))
    scored = KerasModel(number.path).setFeaturesCol("point").transform(other)
    assert scored.columns == [*other.columns, "prediction"]
    np.testing.assert_allclose(_collected(scored, "prediction"), expected)
    assert {row.features for row in scored.select("features").collect()} == {"a text"}
    arrays = KerasModel(number.path).setFeaturesCol("pair").transform(frame)
    np.testing.assert_allclose(_collected(arrays, "prediction"), expected, rtol=1e-6)


def test_figures_of_a_model_equal_keras(frame, tmp_path):
    import keras

    keras.utils.set_random_seed(3)
    point = keras.Input((2,), name="features")
    model = keras.Model({"features": point}, keras.layers.Dense(3, "softmax")(point))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    entries = (
        SpecEntry(name="features", column="features", dtype="float32", shape=(2,)),
        SpecEntry(name="label", column="label", dtype="int32", role="label", source_type="int"),
    )
    path = export_model(model, FeatureSpec(entries=entries), f"{tmp_path}/1", run_id="run-1")
    x = np.array([[np.sin(i), np.cos(i)] for i in range(ROWS)], "float32")
    own = model.evaluate({"features": x}, np.arange(ROWS) % 3, verbose=0, return_dict=True)
    fitted = KerasClassificationModel(path)
    found = fitted.evaluate(frame)
    assert found.metrics == pytest.approx(own, rel=1e-6)
    assert (found.rows, found.confusion.accuracy) == (ROWS, pytest.approx(own["accuracy"]))
    # a label of another name, and one whose name an input takes meanwhile
    moved = frame.withColumnsRenamed({"features": "point", "label": "features"})
    fitted.setFeaturesCol("point").setLabelCol("features")
    assert fitted.evaluate(moved).metrics == found.metrics
    with pytest.raises(SchemaError, match="label column 'kind' is not in the table"):
        fitted.setLabelCol("kind").evaluate(moved)


def test_two_models_in_one_pipeline(frame, number):
    models = [KerasModel(number.path).setPredictionCol(name) for name in ("one", "two")]
    scored = Pipeline(stages=models).fit(frame).transform(frame)
    np.testing.assert_array_equal(_collected(scored, "one"), _collected(scored, "two"))


def test_a_table_that_cannot_be_scored(frame, number, logits):
    model = KerasRegressionModel(number.path)
    with pytest.raises(SchemaError, match="feature column 'features' is not in the table"):
        model.transform(frame.drop("features"))
    with pytest.raises(ModelError, match="has the columns label already"):
        model.copy({model.predictionCol: "label"}).transform(frame)
    with pytest.raises(ModelError, match="was trained on features; a, b is set"):
        KerasModel(number.path).setFeaturesCols(["a", "b"]).transform(frame)
    with pytest.raises(ModelError, match="a regressor has one output, one number a row"):
        KerasRegressionModel(logits.path).check_output()


# --- files ------------------------------------------------------------------------------------


def test_an_estimator_comes_back_as_it_was(spark, tmp_path):
    path = str(tmp_path / "estimator")
    saved = KerasClassifier(
        modelFn="models:small",
        modelParams={"width": 8},
        callbacks="models:callbacks",
        epochs=4,
        thresholds=[0.3, 0.7],
        settings={"training": {"remainder": "pad"}},
    )
    saved.save(path)
    loaded = KerasClassifier.load(path)
    assert loaded.uid == saved.uid
    assert loaded.extractParamMap() == saved.extractParamMap()
    with pytest.raises(ModelError, match="is there already"):
        saved.save(path)
    saved.setEpochs(5).write().overwrite().save(path)
    assert KerasClassifier.load(path).getEpochs() == 5
    with pytest.raises(ModelError, match=r"holds a spark_dl\.ml\.KerasClassifier, expected"):
        KerasRegressor.load(path)


def test_a_function_is_saved_by_its_name_or_not_at_all(spark, tmp_path):
    from spark_dl.ml import dense

    path = tmp_path / "estimator"
    KerasEstimator(modelFn=dense.regressor).save(str(path))
    assert KerasEstimator.load(str(path)).getModelFn() == "spark_dl.ml.dense:regressor"
    unnamed = KerasEstimator(modelFn=lambda spec, params: None)
    with pytest.raises(ConfigError, match="it cannot be imported by a name, and pickled code"):
        unnamed.write().overwrite().save(str(path))
    assert path.exists()


def test_a_saved_model_needs_its_run_no_more(spark, frame, tmp_path, number):
    path = str(tmp_path / "model")
    model = KerasRegressionModel(number.path, "run-1", {"loss": [1.0]}).setPredictionCol("guess")
    model.save(f"file://{path}")
    loaded = KerasRegressionModel.load(path)
    assert loaded.modelPath == os.path.join(path, "model")
    assert (loaded.runId, loaded.history, loaded.uid) == ("run-1", {"loss": [1.0]}, model.uid)
    scored = _collected(loaded.transform(frame), "guess")
    np.testing.assert_array_equal(scored, _collected(model.transform(frame), "guess"))


def test_a_damaged_model_is_not_loaded(spark, tmp_path, number):
    path = tmp_path / "model"
    KerasModel(number.path).save(str(path))
    (path / "model" / "feature_spec.json").write_text("{}")
    with pytest.raises(ModelError):
        KerasModel.load(str(path))


def test_classes_are_those_that_the_indexer_noted(frame):
    indexed = StringIndexer(inputCol="text", outputCol="class").fit(frame).transform(frame)
    first = indexed.where("class = 0")
    assert KerasClassifier(labelCol="class")._facts(first)["numClasses"] == 2
    assert KerasClassifier()._facts(frame)["numClasses"] == 3
    assert KerasClassifier(numClasses=7)._facts(frame)["numClasses"] == 7

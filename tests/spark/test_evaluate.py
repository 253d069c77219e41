"""`evaluate` on the cluster against Keras' own `evaluate` on one machine."""

from __future__ import annotations

import json

import numpy as np
import pytest

import spark_dl
from spark_dl._jvm import is_connect
from spark_dl.config import load_config
from spark_dl.errors import DataError, MetricError, ModelError, SchemaError
from spark_dl.pipeline import run_evaluate
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

ROWS = 107
KINDS = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A compiled classifier, exported into a run directory, and rows with labels that are text."""
    import keras

    keras.utils.set_random_seed(2)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, 4)).astype("float32")
    classes = rng.integers(0, 3, ROWS)
    inputs = keras.Input((4,), name="x")
    model = keras.Model({"x": inputs}, keras.layers.Dense(3, "softmax", name="kind")(inputs))
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
    )
    spec = FeatureSpec(
        entries=(
            SpecEntry(name="x", column="x", dtype="float32", shape=(4,)),
            SpecEntry(
                name="kind",
                column="kind",
                dtype="int64",
                role="label",
                source_type="string",
                vocabulary=KINDS,
            ),
        )
    )
    runs = tmp_path_factory.mktemp("runs")
    path = export_model(model, spec, str(runs / "r1" / "model" / "1"), run_id="r1")
    own = model.evaluate({"x": x}, classes, batch_size=10, verbose=0, return_dict=True)
    guess = model.predict({"x": x}, verbose=0).argmax(axis=1)
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (classes, guess), 1)
    rows = [(i, x[i].tolist(), KINDS[k]) for i, k in enumerate(classes)]
    return path, rows, own, matrix, runs


def frame(spark, rows, partitions=5):
    return spark.createDataFrame(rows, "id int, x array<float>, kind string").repartition(
        partitions
    )


def test_figures_equal_keras_however_the_rows_lie(spark, classifier, descriptions):
    path, rows, own, matrix, runs = classifier
    result = spark_dl.evaluate(frame(spark, rows), path, batch_size=16)
    assert is_connect(spark) or "spark_dl: evaluate r1" in descriptions(spark)
    assert result.metrics.keys() == own.keys()
    for name, value in own.items():
        assert result.metrics[name] == pytest.approx(value, rel=1e-6)
    assert result.rows == ROWS
    assert result.confusion.labels == KINDS
    assert np.array_equal(result.confusion.counts, matrix)
    assert result.confusion.accuracy == pytest.approx(own["accuracy"], rel=1e-6)
    assert result.path.startswith(f"{runs}/r1/evaluations/evaluation-")
    written = json.loads((runs / result.path / "evaluation.json").read_text())
    assert written["confusion"]["counts"] == matrix.tolist()
    page = (runs / result.path / "report.html").read_text()
    assert "<th>bee</th>" in page
    assert "http" not in page


def test_a_plain_model_without_a_loss_has_plain_figures(spark, tmp_path):
    import keras

    x = keras.Input((1,), name="a")
    model = keras.Model(x, keras.layers.Dense(1)(x))
    model.export(str(tmp_path / "m"), verbose=False)
    df = spark.range(5).selectExpr("float(id) a", "double(id * 2) y")
    result = spark_dl.evaluate(df, tmp_path / "m", label="y", runs=tmp_path)
    a = np.arange(5, dtype="float32")[:, None]
    gap = model.predict(a, verbose=0)[:, 0] - 2 * a[:, 0]
    assert result.metrics["mean_squared_error"] == pytest.approx((gap**2).mean(), rel=1e-5)
    assert result.metrics["mean_absolute_error"] == pytest.approx(np.abs(gap).mean(), rel=1e-5)
    assert (result.confusion, result.rows) == (None, 5)
    with pytest.raises(SchemaError, match="does not say which column is the label"):
        spark_dl.evaluate(df, tmp_path / "m", runs=tmp_path)


def test_what_cannot_be_evaluated(spark, classifier):
    path, rows, *_ = classifier
    with pytest.raises(SchemaError, match="label column 'kind' is not in the table"):
        spark_dl.evaluate(frame(spark, rows).drop("kind"), path)
    with pytest.raises(DataError, match="label column 'kind': 1 rows hold null, or a label"):
        spark_dl.evaluate(frame(spark, [*rows[:3], (9, [0.0] * 4, "dog")], 1), path)
    with pytest.raises(DataError, match="the table has no rows"):
        spark_dl.evaluate(frame(spark, rows).where("id < 0"), path)


def test_a_metric_that_is_no_sum_is_an_error_and_none_at_all_is_not(
    spark, classifier, monkeypatch, caplog
):
    path, rows, *_ = classifier

    def found_by_tasks(kind):
        def refuse(batches, task, compute):
            raise kind("metric 'own'" if next(batches).num_rows else "")

        # what the tasks run: a class that only the driver knows would not load in them
        monkeypatch.setattr("spark_dl.inference.evaluate.partial_metrics", refuse)
        return spark_dl.evaluate(frame(spark, rows), path)

    with pytest.raises(MetricError, match=r"^metric 'own'$"):
        found_by_tasks(MetricError)
    assert "loss" not in found_by_tasks(ModelError).metrics
    assert "the model's own metrics cannot be computed: metric 'own'" in caplog.text


def test_the_job(spark, classifier, tmp_path):
    path, rows, own, *_ = classifier
    frame(spark, rows).write.format("delta").save(str(tmp_path / "t"))
    settings = [f"infer.model={path}", f"table.path={tmp_path}/t", f"runs={tmp_path}/runs"]
    result = run_evaluate(load_config(None, settings), spark)
    assert result["metrics"]["loss"] == pytest.approx(own["loss"], rel=1e-6)
    status = json.loads((tmp_path / "runs" / result["id"] / "status.json").read_text())
    assert status["metrics"]["rows"] == ROWS

"""`predict` against Keras' own predictions, on real Spark."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pytest

from spark_dl._jvm import is_connect
from spark_dl.errors import ConfigError, DataError, ModelError
from spark_dl.inference import apply, open_model, packing, predict, task_error, udf
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

ROWS = 101
RNG = np.random.default_rng(5)


@dataclass(frozen=True)
class Case:
    path: str
    inputs: dict
    rows: list
    schema: str
    expected: dict
    made: list = field(default_factory=list)

    def frame(self, spark):
        """Return the rows in three partitions; they are made once, which takes Python workers."""
        if not self.made:
            rows = spark.createDataFrame(self.rows, self.schema)
            self.made.append(rows.repartition(3).cache())
        return self.made[0]


def _case(folder, model, spec, inputs, schema, rows):
    path = export_model(model, spec, str(folder), run_id="test-run")
    values = model.predict(inputs, verbose=0, batch_size=17)
    if not isinstance(values, dict):
        values = {"prediction": values}
    return Case(path, inputs, rows, schema, values)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Two scalars, one of them a double in the table; one number out."""
    import keras

    keras.utils.set_random_seed(1)
    spec = FeatureSpec(
        entries=(
            SpecEntry(name="a", column="col a", dtype="float32", source_type="double"),
            SpecEntry(name="n", column="n", dtype="int64", source_type="bigint"),
        )
    )
    layers = keras.layers
    ins = {"a": keras.Input((), name="a"), "n": keras.Input((), name="n", dtype="int64")}
    number = layers.Rescaling(0.01)(layers.Reshape((1,))(ins["n"]))
    both = layers.Concatenate()([layers.Reshape((1,))(ins["a"]), number])
    out = layers.Dense(1, name="score")(layers.Dense(8, "relu")(both))
    model = keras.Model(ins, out)
    a, n = RNG.normal(size=ROWS), RNG.integers(0, 100, ROWS)
    rows = [(i, float(x), int(k), f"text {i}") for i, (x, k) in enumerate(zip(a, n, strict=True))]
    inputs = {"a": a.astype("float32"), "n": n}
    folder = tmp_path_factory.mktemp("dense") / "1"
    return _case(folder, model, spec, inputs, "id long, `col a` double, n long, kept string", rows)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
    """An array into a convolution; two outputs, a vector and a number."""
    import keras

    keras.utils.set_random_seed(2)
    entry = SpecEntry(name="image", column="pixels", dtype="float32", shape=(8, 8, 1))
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    hidden = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model(
        {"image": image},
        {"digit": layers.Dense(10, "softmax")(hidden), "ink": layers.Dense(1)(hidden)},
    )
    pixels = RNG.random((ROWS, 64), dtype="float32")
    rows = [(i, row.tolist()) for i, row in enumerate(pixels)]
    folder = tmp_path_factory.mktemp("cnn") / "1"
    spec = FeatureSpec(entries=(entry,))
    inputs = {"image": pixels.reshape(-1, 8, 8, 1)}
    return _case(folder, model, spec, inputs, "id long, pixels array<float>", rows)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A string and an array of variable length."""
    import keras

    keras.utils.set_random_seed(3)
    spec = FeatureSpec(
        entries=(
            SpecEntry(name="city", column="city", dtype="string"),
            SpecEntry(name="visits", column="visits", dtype="float32", shape=(None,)),
        )
    )
    layers = keras.layers
    city = keras.Input((), name="city", dtype="string")
    visits = keras.Input((None,), name="visits")
    known = ["Łódź", "Roma", ""]
    embedded = layers.Embedding(5, 3)(layers.StringLookup(vocabulary=known)(city))
    total = layers.Reshape((1,))(keras.ops.sum(visits, axis=1))
    out = layers.Dense(2)(layers.Concatenate()([embedded, total]))
    model = keras.Model({"city": city, "visits": visits}, out)
    import tensorflow as tf

    cities = [[*known, "elsewhere"][i % 4] for i in range(ROWS)]
    lists = [[float(j) for j in range(i % 6)] for i in range(ROWS)]
    padded = np.array([row + [0.0] * (5 - len(row)) for row in lists], "float32")
    rows = [(i, c, v) for i, (c, v) in enumerate(zip(cities, lists, strict=True))]
    inputs = {"city": tf.constant(cities), "visits": padded}
    folder = tmp_path_factory.mktemp("text") / "1"
    return _case(folder, model, spec, inputs, "id long, city string, visits array<float>", rows)


OF_ARROW_UDF = pytest.mark.since_spark("4.1")


def of_its_spark(way, *more):
    """Return a parameter set; the last two ways are those of Spark below 4.1, and run on any."""
    marks = OF_ARROW_UDF if way in ("packed", "arrow_udf") else ()
    return pytest.param(way, *more, marks=marks)


NAMES = ("packed", *get_args(udf.Way))
WAYS = tuple(map(of_its_spark, NAMES))
SIZED = (of_its_spark("arrow_udf", 4096), *(of_its_spark(way, 7) for way in NAMES))


def use(monkeypatch, way):
    """Hand the columns over by one of the ways."""
    if way == "arrow_udf":
        monkeypatch.setattr(packing, "register_packing", lambda spark: False)
    if way == "packed":
        way = "arrow_udf"
    monkeypatch.setattr(udf, "has_arrow_udf", lambda: way == "arrow_udf")
    monkeypatch.setattr(apply, "way_into_python", lambda df, task: way)


def _collected(df, column):
    rows = df.select("id", column).orderBy("id").collect()
    return np.array([row[column] for row in rows])


@pytest.mark.parametrize(("way", "batch_size"), SIZED)
def test_scalars_equal_keras(spark, dense, monkeypatch, way, batch_size):
    use(monkeypatch, way)
    out = predict(dense.frame(spark), dense.path, batch_size=batch_size)
    got = _collected(out, "prediction")
    assert got.shape == (ROWS,)
    np.testing.assert_allclose(got, dense.expected["prediction"][:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_array_into_cnn_with_two_outputs_equals_keras(spark, cnn, monkeypatch, way):
    use(monkeypatch, way)
    out = predict(cnn.frame(spark), cnn.path, batch_size=10).cache()
    assert dict(out.dtypes)["prediction_digit"] == "array<float>"
    assert dict(out.dtypes)["prediction_ink"] == "float"
    for column, name in (("prediction_digit", "digit"), ("prediction_ink", "ink")):
        expected = cnn.expected[name]
        got = _collected(out, column).reshape(expected.shape)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    out.unpersist()


@pytest.mark.parametrize("way", WAYS)
def test_strings_and_variable_length_equal_keras(spark, text, monkeypatch, way):
    use(monkeypatch, way)
    out = predict(text.frame(spark), text.path)
    got = _collected(out, "prediction")
    np.testing.assert_allclose(got, text.expected["prediction"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 13])
def test_any_number_of_rows_in_a_partition(spark, dense, rows):
    df = dense.frame(spark).where(f"id < {rows}").repartition(5)  # most of them are empty
    out = predict(df, dense.path, batch_size=4)
    got = _collected(out, "prediction")
    assert got.shape == (rows,)
    expected = dense.expected["prediction"][:rows, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_one_huge_partition_gives_what_small_ones_give(spark, dense):
    rows = 150_000

    def scored(partitions, batch_size):
        df = spark.range(0, rows, 1, partitions).selectExpr("sin(id) `col a`", "id % 100 n", "id")
        out = predict(df, dense.path, batch_size=batch_size)
        return out.orderBy("id").select("prediction").toPandas()["prediction"].to_numpy()

    huge, small = scored(1, 4096), scored(7, 777)
    assert huge.shape == (rows,)
    np.testing.assert_allclose(huge, small, rtol=1e-6, atol=1e-6)


def test_every_input_column_is_kept_and_the_row_says_where_it_came_from(spark, dense):
    df = dense.frame(spark)
    out = predict(df, dense.path, scoring_id="today", prefix="p")
    assert out.columns == [*df.columns, "p", "model_run_id", "model_version", "scoring_id"]
    assert out.dtypes[-4:] == [
        ("p", "float"),
        ("model_run_id", "string"),
        ("model_version", "int"),
        ("scoring_id", "string"),
    ]
    assert sorted(out.select(*[f"`{name}`" for name in df.columns]).collect()) == sorted(
        df.collect()
    )
    lineage = out.select("model_run_id", "model_version", "scoring_id").distinct().collect()
    assert [tuple(row) for row in lineage] == [("test-run", 1, "today")]


def test_each_call_without_an_id_is_a_scoring_of_its_own(spark, dense):
    first, second = (predict(dense.frame(spark), dense.path).first().scoring_id for _ in range(2))
    assert first.startswith("score-")
    assert first != second


def _plan(df):
    with contextlib.redirect_stdout(io.StringIO()) as told:
        df.explain()
    return told.getvalue()


def test_the_model_runs_once_a_row_however_the_predictions_are_used(spark, cnn):
    out = predict(cnn.frame(spark), cnn.path)
    for used in (out, out.where("prediction_ink > 0 and prediction_digit[3] < 0.5")):
        assert len(re.findall(r"ArrowEvalPython \[|MapInArrow", _plan(used))) == 1


def test_a_filter_on_an_input_column_spares_the_model_those_rows(spark, dense):
    plan = _plan(predict(dense.frame(spark), dense.path).where("kept = 'text 3'"))
    lines = plan.splitlines()
    evaluated = next(i for i, line in enumerate(lines) if "ArrowEvalPython [" in line)
    assert any("text 3" in line for line in lines[evaluated:])  # below it


def test_only_the_feature_columns_cross_to_python(spark, dense):
    plan = _plan(predict(dense.frame(spark), dense.path))
    call = next(line for line in plan.splitlines() if "ArrowEvalPython [" in line)
    assert "kept" not in call
    assert "id#" not in call


@pytest.fixture
def of_this_process(spark):
    """A session in whose JVM functions can be registered."""
    if is_connect(spark):
        pytest.skip("over Spark Connect arrays cross as arrays")
    return spark


@OF_ARROW_UDF
def test_arrays_of_numbers_cross_as_binaries(of_this_process, cnn, monkeypatch):
    spark = of_this_process
    use(monkeypatch, "packed")
    packed = predict(cnn.frame(spark), cnn.path)
    assert re.search(r"ArrowEvalPython \[score\(spark_dl_pack\(pixels", _plan(packed))
    use(monkeypatch, "arrow_udf")
    plain = predict(cnn.frame(spark), cnn.path)
    assert "spark_dl_pack" not in _plan(plain)
    assert packed.schema == plain.schema


@OF_ARROW_UDF
def test_a_session_of_its_own_packs_too(of_this_process, cnn):
    own = of_this_process.newSession()
    own.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    out = predict(own.createDataFrame(cnn.rows, cnn.schema), cnn.path)
    assert "spark_dl_pack" in _plan(out)
    got = _collected(out, "prediction_digit")
    np.testing.assert_allclose(got, cnn.expected["digit"], rtol=1e-6, atol=1e-6)


def test_narrower_numbers_of_another_table_fit(spark, dense):
    df = dense.frame(spark).selectExpr("id", "float(`col a`) as `col a`", "int(n) as n")
    got = _collected(predict(df, dense.path), "prediction")
    np.testing.assert_allclose(got, dense.expected["prediction"][:, 0], rtol=1e-6, atol=1e-6)


def test_all_mismatches_are_listed_before_any_task(spark, dense):
    df = dense.frame(spark).selectExpr("`col a` as `col b`", "string(n) as n")
    with pytest.raises(ModelError) as caught:
        predict(df, dense.path)
    message = str(caught.value)
    assert "column 'col a' is missing; did you mean 'col b'?" in message
    assert "column 'n' is string, expected bigint" in message


def test_a_prediction_column_may_not_take_a_taken_name(spark, dense):
    df = dense.frame(spark).withColumnsRenamed({"id": "Prediction", "kept": "scoring_id"})
    with pytest.raises(ModelError, match="has the columns prediction, scoring_id already"):
        predict(df, dense.path)


def test_batch_size_must_be_positive(spark, dense):
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        predict(dense.frame(spark), dense.path, batch_size=0)


def test_a_bad_row_ends_the_job_and_names_its_column(spark, cnn):
    cause = "column 'pixels': null; input 'image' takes none (1 of 1 rows"
    df = spark.sql("SELECT 1L id, CAST(NULL AS ARRAY<FLOAT>) pixels")
    with pytest.raises(Exception, match="DataError") as caught:
        predict(df, cnn.path).collect()
    ours = task_error(caught.value)
    assert isinstance(ours, DataError)
    assert cause in str(ours)
    assert "Traceback" not in str(ours)
    assert "\tat " not in str(ours)


def test_no_such_model(spark, tmp_path):
    with pytest.raises(ModelError, match="there is no such folder"):
        predict(spark.range(1), tmp_path / "nothing")


@pytest.mark.parametrize("missing", ["saved_model.pb", "feature_spec.json", "model.json"])
def test_a_folder_that_is_no_model(spark, dense, tmp_path, missing):
    folder = tmp_path / "model"
    shutil.copytree(dense.path, folder)
    os.remove(folder / missing)
    with pytest.raises(ModelError, match=rf"is not an exported model: {missing} missing"):
        predict(spark.range(1), folder)


def test_a_changed_model_is_noticed(dense, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(dense.path, folder)
    data = next((folder / "variables").glob("variables.data*"))
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= 1
    data.write_bytes(bytes(raw))
    with pytest.raises(ModelError, match="not the one that was exported"):
        open_model(folder)


@pytest.mark.parametrize("way", WAYS)
def test_bad_rows_are_null_on_either_way(spark, cnn, monkeypatch, way):
    use(monkeypatch, way)
    rows = [(1, None), (2, [None] * 64), (3, [0.5] * 63), (4, [0.5] * 64)]
    df = spark.createDataFrame(rows, "id long, pixels array<float>")
    out = predict(df, cnn.path, on_error="null").orderBy("id").collect()
    assert [row["id"] for row in out if row["prediction_error"] is None] == [4]
    assert [row["id"] for row in out if row["prediction_ink"] is not None] == [4]
    reasons = [row["prediction_error"] for row in out]
    assert reasons[0] == "column 'pixels': null; input 'image' takes none"
    holed = reasons[0] if way == "pandas_udf" else "column 'pixels': null inside an array"
    assert reasons[1] == holed
    assert "63 elements, input 'image' of shape (8, 8, 1) needs 64" in reasons[2]

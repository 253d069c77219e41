"""Models that no run exported, every kind of input, outputs as structs, rows that are bad."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as sf

import spark_dl
from spark_dl import Feature
from spark_dl.errors import ModelError
from spark_dl.inference import open_any, predict
from spark_dl.inference.udf import has_arrow_udf
from spark_dl.schema import FeatureSpec
from spark_dl.schema.derive import select_columns
from spark_dl.training.export import export_model

pytestmark = [
    pytest.mark.spark,
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = 23
RNG = np.random.default_rng(11)
WIDE = RNG.random((ROWS, 3), dtype="float32")
IMAGES = RNG.integers(0, 256, (ROWS, 4), dtype="uint8")


@pytest.fixture(scope="module")
def two_inputs():
    """A vector and an image in; two heads out, one of them whole numbers."""
    import keras

    keras.utils.set_random_seed(4)
    layers = keras.layers
    ins = {
        "wide": keras.Input((3,), name="wide"),
        "image": keras.Input((2, 2, 1), name="image", dtype="uint8"),
    }
    pixels = layers.Flatten()(layers.Rescaling(1 / 255)(ins["image"]))
    both = layers.Concatenate()([ins["wide"], pixels])
    kind = layers.Dense(2, "softmax", name="kind")(both)
    return keras.Model(ins, {"kind": kind, "size": layers.Dense(1, name="size")(both)})


@pytest.fixture(scope="module")
def expected(two_inputs):
    inputs = {"wide": WIDE, "image": IMAGES.reshape(-1, 2, 2, 1)}
    return two_inputs.predict(inputs, verbose=0)


@pytest.fixture(
    scope="module", params=["saved_model", pytest.param("keras", marks=pytest.mark.long)]
)
def plain(request, two_inputs, tmp_path_factory):
    """A model of each kind that has no spec beside it."""
    folder = tmp_path_factory.mktemp("plain")
    if request.param == "saved_model":
        two_inputs.export(str(folder / "model"), verbose=False)
        return str(folder / "model")
    two_inputs.save(folder / "model.keras")
    return str(folder / "model.keras")


@pytest.fixture(scope="module")
def table(spark):
    rows = [
        (i, *map(float, wide), wide.tolist(), Vectors.dense(wide.tolist()), bytes(image))
        for i, (wide, image) in enumerate(zip(WIDE, IMAGES, strict=True))
    ]
    kinds = "id long, a double, b double, c double, wide array<float>, v vector, image binary"
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql.types import StructType

    schema = spark.createDataFrame([], kinds.replace("v vector, ", "")).schema
    fields = [*schema.fields[:5], *StructType().add("v", VectorUDT()).fields, schema.fields[5]]
    return spark.createDataFrame(rows, StructType(fields)).repartition(2).cache()


def same(df, expected):
    rows = df.orderBy("id").collect()
    kind = np.array([row["prediction_kind"] for row in rows])
    np.testing.assert_allclose(kind, expected["kind"], rtol=1e-6, atol=1e-6)
    size = np.array([row["prediction_size"] for row in rows])
    np.testing.assert_allclose(size, expected["size"][:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wide", ["wide", "v", ["a", "b", "c"], "s.inner.wide"])
def test_every_way_to_give_a_vector_equals_keras(spark, plain, table, expected, wide):
    df = table
    if wide == "s.inner.wide":
        inner = sf.struct(sf.struct("wide").alias("inner")).alias("s")
        df = table.select("id", "image", inner)
    out = predict(df, plain, inputs={"wide": wide}, batch_size=7)
    same(out, expected)
    assert out.schema["model_run_id"].dataType.simpleString() == "string"
    assert out.first()["model_version"] is None


def test_outputs_can_be_one_struct(spark, plain, table, expected):
    out = predict(table, plain, as_struct=True)
    assert out.schema["prediction"].dataType.simpleString() == (
        "struct<kind:array<float>,size:float>"
    )
    names = ["kind", "size"]
    same(
        out.select("id", *[sf.col(f"prediction.{n}").alias(f"prediction_{n}") for n in names]),
        expected,
    )


def test_a_model_that_is_copied_to_the_executor(spark, plain, table, expected):
    same(predict(table, f"local://{plain}"), expected)


def test_all_that_does_not_fit_is_said_before_a_row_is_scored(spark, plain, table):
    with pytest.raises(ModelError) as caught:
        predict(table.drop("wide"), plain, inputs={"image": Feature("a", cast="float")})
    assert "column 'wide' is missing" in str(caught.value)
    assert "column 'a' is double, expected array<smallint>" in str(caught.value)


def test_counting_runs_no_model_and_a_prediction_runs_it_once(spark, plain, table):
    out = predict(table, plain)

    def runs(df):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            df.explain()
        return told.getvalue().count("ArrowEvalPython [")

    assert runs(out.groupBy().count()) == 0
    assert runs(out.select("id", "model_version")) == 0
    assert runs(out.where("prediction_size > 0 and prediction_kind[0] > 0.5")) == 1


@pytest.fixture
def spoilt(table):
    """Three rows are spoilt: a null, a null inside, a wrong length."""
    none, short = sf.lit(None), sf.slice("wide", 1, 2)
    holed = sf.array(sf.lit(1.0), none, sf.lit(2.0)).cast("array<float>")
    wide = sf.when(sf.col("id") == 3, none).when(sf.col("id") == 8, holed)
    return table.withColumn("wide", wide.when(sf.col("id") == 9, short).otherwise(sf.col("wide")))


def test_a_bad_row_is_null_and_says_why(spark, plain, spoilt, expected):
    out = predict(spoilt, plain, on_error="null", batch_size=5).cache()
    bad = {row["id"]: row for row in out.where("prediction_error is not null").collect()}
    assert bad.keys() == {3, 8, 9}
    assert all(row["prediction_size"] is None for row in bad.values())
    assert bad[3]["prediction_error"] == "column 'wide': null; input 'wide' takes none"
    # over pandas, below Spark 4.1, an array that has a null in it is none at all
    holed = "null inside an array" if has_arrow_udf() else "null; input 'wide' takes none"
    assert bad[8]["prediction_error"] == f"column 'wide': {holed}"
    assert "2 elements, input 'wide' of shape (3,) needs 3" in bad[9]["prediction_error"]
    good = np.setdiff1d(np.arange(ROWS), list(bad))
    same(
        out.where("prediction_error is null"),
        {name: values[good] for name, values in expected.items()},
    )
    out.unpersist()


def test_a_value_that_only_the_model_refuses_is_a_bad_row(spark, tmp_path):
    import keras

    word = keras.Input((), dtype="int32", name="word")
    model = keras.Model(word, keras.layers.Embedding(10, 2)(word))
    model.export(str(tmp_path / "m"), verbose=False)
    df = spark.range(0, 20, 1, 1).select(
        "id", sf.when(sf.col("id") == 13, 99).otherwise(sf.col("id") % 10).alias("word")
    )
    rows = predict(df, tmp_path / "m", on_error="null").orderBy("id").collect()
    assert [row["id"] for row in rows if row["prediction"] is None] == [13]
    assert "the model refuses the values: " in rows[13]["prediction_error"]
    assert "99" in rows[13]["prediction_error"]


def test_code_in_a_model_needs_an_explicit_yes(spark, tmp_path):
    import keras

    x = keras.Input((1,), name="x")
    path = tmp_path / "lambda.keras"
    keras.Model(x, keras.layers.Lambda(lambda t: t * 3)(x)).save(path)
    df = spark.createDataFrame([(2.0,)], "x double")
    with pytest.raises(ModelError, match=r"holds a Lambda layer, .*allow_lambda=True"):
        predict(df, path)
    assert predict(df, path, allow_lambda=True).first()["prediction"] == 6.0


def test_a_file_of_another_keras_names_both(spark, tmp_path):
    import keras

    x = keras.Input((1,), name="x")
    new, old = tmp_path / "new.keras", tmp_path / "old.keras"
    keras.Model(x, keras.layers.Dense(1)(x)).save(new)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "metadata.json":
                data = json.dumps({**json.loads(data), "keras_version": "9.8.7"}).encode()
            if name == "config.json":
                data = data.replace(b'"Dense"', b'"DenserThanHere"')
            target.writestr(name, data)
    with pytest.raises(ModelError, match=r"saved by Keras 9\.8\.7, here is 3\."):
        open_any(old, spark)
    (tmp_path / "no.keras").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"is no \.keras file"):
        open_any(tmp_path / "no.keras", spark)


def test_two_models_in_one_query(spark, plain, table, expected, two_inputs, tmp_path):
    import keras

    other = keras.models.clone_model(two_inputs)
    other.export(str(tmp_path / "other"), verbose=False)
    first = predict(table, plain).drop("model_run_id", "model_version", "scoring_id")
    both = predict(first, tmp_path / "other", prefix="other")
    same(both, expected)
    inputs = {"wide": WIDE, "image": IMAGES.reshape(-1, 2, 2, 1)}
    size = np.array([row["other_size"] for row in both.orderBy("id").collect()])
    wanted = other.predict(inputs, verbose=0)["size"][:, 0]
    np.testing.assert_allclose(size, wanted, rtol=1e-6, atol=1e-6)


def test_a_label_that_is_text_comes_back_as_text(spark, tmp_path):
    import keras

    kinds = ["cat", "ant", "bee"]
    rows = [(i, float(i % 7), kinds[i % 3]) for i in range(60)]
    df = spark.createDataFrame(rows, "id long, a float, kind string")
    dataset = spark_dl.prepare(
        df, features=["a"], label="kind", path=tmp_path / "data", splits={"train": 1.0}
    )
    spec = dataset.manifest.spec
    assert spec.label.vocabulary == ("ant", "bee", "cat")
    classes = df.select(*select_columns([spec.label]))
    counts = {row["kind"]: row["count"] for row in classes.groupBy("kind").count().collect()}
    assert counts == {0: 20, 1: 20, 2: 20}

    keras.utils.set_random_seed(1)
    x = keras.Input((), name="a")
    logits = keras.layers.Dense(3, name="out")(keras.layers.Reshape((1,))(x))
    model = keras.Model({"a": x}, logits)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    path = export_model(model, FeatureSpec(entries=spec.entries), str(tmp_path / "1"), run_id="r")
    out = predict(df, path).orderBy("id").collect()
    values = model.predict({"a": np.float32([row["a"] for row in out])}, verbose=0)
    softmax = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    assert [row["prediction_label"] for row in out] == [
        ("ant", "bee", "cat")[k] for k in softmax.argmax(axis=1)
    ]
    certain = [row["prediction_probability"] for row in out]
    np.testing.assert_allclose(certain, softmax.max(axis=1), rtol=1e-5)

"""The job `infer` run twice: the same rows are scored once, other rows are scored."""

from __future__ import annotations

import pytest
from pyspark.sql import functions as sf

import spark_dl
from spark_dl.config import load_config
from spark_dl.errors import DataError
from spark_dl.pipeline import run_infer
from spark_dl.schema import FeatureSpec, SpecEntry
from spark_dl.shards.identity import identify_rows
from spark_dl.storage.checksum import folder_checksum
from spark_dl.tables.commits import scoring_commits
from spark_dl.training.export import export_model

pytestmark = [
    pytest.mark.spark,
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model that takes one number."""
    import keras

    keras.utils.set_random_seed(1)
    number = keras.Input((), name="a")
    score = keras.layers.Dense(1, name="score")(keras.layers.Reshape((1,))(number))
    spec = FeatureSpec(entries=(SpecEntry(name="a", column="a", dtype="float32"),))
    folder = str(tmp_path_factory.mktemp("model") / "1")
    return export_model(keras.Model({"a": number}, score), spec, folder, run_id="test-run")


def rows(spark, first, last):
    return spark.range(first, last, 1, 1).select("id", sf.col("id").cast("float").alias("a"))


@pytest.fixture
def infer(spark, model, tmp_path):
    """Run the job on a table and return what its last line says, and the rows that are there."""

    def run(*settings):
        output = str(tmp_path / "predictions")
        common = [f"infer.model={model}", f"runs={tmp_path / 'runs'}", f"output.path={output}"]
        result = run_infer(load_config(None, [*common, *settings]), spark)
        return result, spark.read.format("delta").load(output).count()

    return run


@pytest.fixture(
    params=[
        "parquet",
        pytest.param("sql", marks=pytest.mark.long),
        pytest.param("catalog", marks=pytest.mark.long),
    ]
)
def table(request, spark, tmp_path):
    """A table without versions, as the config names it, and a function that adds rows to it."""
    path = str(tmp_path / "table")
    name = "infer_job_table"
    settings = {
        "parquet": [f"table.path={path}", "table.format=parquet"],
        "sql": [f"table.sql=SELECT * FROM parquet.`{path}`"],  # noqa: S608 (our own path)
        "catalog": [f"table.name={name}"],
    }

    def add(first, last):
        rows(spark, first, last).write.mode("append").parquet(path)
        if request.param == "catalog":
            if first == 0:
                spark.sql(f"CREATE TABLE {name} USING parquet LOCATION '{path}'")
            spark.catalog.refreshTable(name)

    yield settings[request.param], add
    spark.sql(f"DROP TABLE IF EXISTS {name}")


def test_without_versions_new_rows_are_scored_and_old_ones_are_not_twice(infer, table):
    settings, add = table
    add(0, 5)
    first, there = infer(*settings)
    assert (first["rows"], there) == (5, 5)
    again, there = infer(*settings)
    assert (again["scoring_id"], there) == (first["scoring_id"], 5)
    add(5, 8)
    later, there = infer(*settings)
    assert later["scoring_id"] != first["scoring_id"]
    assert (later["rows"], there) == (8, 13)


def test_rows_that_cannot_be_identified_are_scored_each_time(infer, caplog):
    query = "SELECT id, float(id) a, map(id, id) m FROM range(4)"
    first, there = infer(f"table.sql={query}")
    again, twice = infer(f"table.sql={query}")
    assert again["scoring_id"] != first["scoring_id"]
    assert (there, twice) == (4, 8)
    assert "set `output.scoring_id`" in caplog.text


@pytest.mark.long
def test_the_same_split_of_another_dataset_is_another_question(spark, infer, tmp_path):
    table, dataset = str(tmp_path / "table"), str(tmp_path / "dataset")
    rows(spark, 0, 60).write.format("delta").save(table)
    settings = [f"table.path={table}", f"dataset.path={dataset}", "infer.split=test"]

    def prepare(seed):
        df = spark.read.format("delta").load(table)
        spark_dl.prepare(df, features=["a"], id="id", path=dataset, seed=seed)

    prepare(1)
    first, there = infer(*settings)
    again, same = infer(*settings)
    assert again["scoring_id"] == first["scoring_id"]
    assert there == same > 0
    prepare(2)
    other, more = infer(*settings)
    assert other["scoring_id"] != first["scoring_id"]
    assert more > there


def test_rows_are_told_apart_by_their_values_and_not_by_their_order(spark):
    def identity(values, names="x, y"):
        return identify_rows(spark.sql(f"SELECT * FROM VALUES {values} AS t({names})"))  # noqa: S608 (our own values)

    assert identity("(1, 2), (3, 4)") == identity("(3, 4), (1, 2)")
    different = [
        identity("(1, 2), (3, 4)"),
        identity("(1, 2)"),
        identity("(1, 2), (1, 2)"),
        identity("(1, INT(NULL))"),
        identity("(INT(NULL), 1)"),
        identity("(1, 2)", names="x, z"),
        identity("(1, 2L)"),
    ]
    assert len(set(different)) == len(different)
    assert identify_rows(spark.sql("SELECT 1 AS x, 2 AS x")) is None


@pytest.fixture
def holed(spark, tmp_path):
    """Ten rows, two of them without the number."""
    path = str(tmp_path / "holed")
    number = sf.when(~sf.col("id").isin(2, 7), sf.col("id").cast("float"))
    spark.range(0, 10, 1, 2).select("id", number.alias("a")).write.format("delta").save(path)
    return [f"table.path={path}"]


def test_bad_rows_go_to_their_own_table_once(spark, infer, holed, tmp_path):
    settings = [*holed, "infer.on_error=quarantine"]
    first, there = infer(*settings)
    assert (first["rows"], first["bad_rows"], there) == (8, 2, 8)
    quarantine = spark.read.format("delta").load(first["quarantine"])
    assert quarantine.columns == [
        "id",
        "a",
        "prediction_error",
        "model_run_id",
        "model_version",
        "scoring_id",
    ]
    rows_there = sorted(quarantine.collect())
    assert [row["id"] for row in rows_there] == [2, 7]
    assert rows_there[0]["prediction_error"] == "column 'a': null; input 'a' takes none"
    again, same = infer(*settings)
    assert (again["rows"], again["bad_rows"], same) == (8, 2, 8)
    assert quarantine.count() == 2
    status = next((tmp_path / "runs").glob("infer-*/status.json")).read_text()
    assert '"bad_rows": 2.0' in status


def test_bad_rows_stay_with_null_predictions(spark, infer, holed, model):
    result, there = infer(*holed, "infer.on_error=null")
    assert (result["rows"], result["bad_rows"], result["quarantine"], there) == (10, 2, None, 10)
    found = spark.read.format("delta").load(result["output"])
    assert found.where("prediction IS NULL AND prediction_error IS NOT NULL").count() == 2
    # both the table and the commit say what it was made of
    facts = {
        "model_path": model,
        "model_run_id": "test-run",
        "model_version": "1",
        "model_checksum": folder_checksum(model),
        "source": holed[0].partition("=")[2],
        "source_version": "0",
        "version": spark_dl.__version__,
    }
    (commit,) = scoring_commits(result["output"])
    assert commit.facts.items() >= facts.items()
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{result['output']}`").first()
    named = {f"spark_dl.{name}": value for name, value in facts.items()}
    assert detail["properties"].items() >= named.items()


def test_a_bad_row_ends_the_job_and_leaves_nothing(spark, infer, holed, tmp_path):
    with pytest.raises(DataError, match="column 'a': null"):
        infer(*holed)
    assert spark.read.format("delta").load(str(tmp_path / "predictions")).count() == 0


def test_a_plain_model_scores_by_an_explicit_map(spark, infer, tmp_path):
    import keras

    x = keras.Input((2,), name="x")
    keras.Model(x, keras.layers.Dense(1)(x)).save(tmp_path / "plain.keras")
    query = "SELECT id, double(id) p, double(1) q FROM range(3)"
    result, there = infer(
        f"table.sql={query}", f"infer.model={tmp_path}/plain.keras", "infer.inputs={x: [p, q]}"
    )
    assert (result["rows"], there, result["model_run_id"]) == (3, 3, None)

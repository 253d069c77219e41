"""A stream is scored into Delta: each micro-batch once."""

from __future__ import annotations

import pytest
from doubling import export_doubling

import spark_dl
from spark_dl.errors import ConfigError, ModelError

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
    return export_doubling(tmp_path_factory.mktemp("model") / "1", run_id="stream-run")


def feed(spark, path, first, last):
    query = f"SELECT id, float(id) a FROM range({first}, {last}, 1, 1)"  # noqa: S608 (our own numbers)
    spark.sql(query).write.format("delta").mode("append").save(path)


def start(spark, model, tmp_path, **settings):
    stream = spark.readStream.format("delta").load(str(tmp_path / "in"))
    return spark_dl.score_stream(
        stream,
        model,
        output=tmp_path / "out",
        checkpoint=tmp_path / "position",
        name="night",
        trigger={"availableNow": True},
        **settings,
    )


def scored(spark, tmp_path):
    rows = spark.read.format("delta").load(str(tmp_path / "out")).orderBy("id").collect()
    return [(row["id"], row["prediction"], row["scoring_id"]) for row in rows]


def test_new_rows_are_scored_and_a_batch_that_comes_again_is_not(spark, model, tmp_path):
    feed(spark, str(tmp_path / "in"), 0, 4)
    start(spark, model, tmp_path).awaitTermination(120)
    feed(spark, str(tmp_path / "in"), 4, 6)
    start(spark, model, tmp_path).awaitTermination(120)
    expected = [(i, 2.0 * i, f"night-{int(i >= 4)}") for i in range(6)]
    assert scored(spark, tmp_path) == expected
    # as if the query had died between the table's commit and its own
    for name in ("1", ".1.crc"):
        (tmp_path / "position" / "commits" / name).unlink(missing_ok=True)
    start(spark, model, tmp_path).awaitTermination(120)
    assert scored(spark, tmp_path) == expected


def test_bad_rows_of_a_stream_go_to_their_own_table(spark, model, tmp_path):
    query = "SELECT id, IF(id = 1, NULL, float(id)) a FROM range(0, 3, 1, 1)"
    spark.sql(query).write.format("delta").save(str(tmp_path / "in"))
    start(spark, model, tmp_path, on_error="quarantine").awaitTermination(120)
    assert [row[0] for row in scored(spark, tmp_path)] == [0, 2]
    bad = spark.read.format("delta").load(str(tmp_path / "out_quarantine"))
    assert [row["id"] for row in bad.collect()] == [1]


def test_predict_takes_a_stream_for_a_sink_of_one_s_own(spark, model, tmp_path):
    feed(spark, str(tmp_path / "in"), 0, 5)
    stream = spark.readStream.format("delta").load(str(tmp_path / "in"))
    out = spark_dl.predict(stream, model, scoring_id="s")
    assert out.isStreaming
    sink = out.where("prediction > 2").writeStream.format("memory").queryName("scored_stream")
    sink.option("checkpointLocation", str(tmp_path / "position"))
    sink.trigger(availableNow=True).start().awaitTermination(120)
    rows = spark.table("scored_stream").orderBy("id").collect()
    assert [(row["id"], row["prediction"], row["scoring_id"]) for row in rows] == [
        (i, 2.0 * i, "s") for i in range(2, 5)
    ]


def test_what_no_stream_can_be_is_said_at_once(spark, model, tmp_path):
    feed(spark, str(tmp_path / "in"), 0, 1)
    settings = {"output": tmp_path / "o", "checkpoint": tmp_path / "c", "name": "n"}
    with pytest.raises(ConfigError, match="takes a streaming DataFrame"):
        spark_dl.score_stream(spark.range(1), model, **settings)
    stream = spark.readStream.format("delta").load(str(tmp_path / "in"))
    with pytest.raises(ModelError, match="column 'a' is missing"):
        spark_dl.score_stream(stream.drop("a"), model, **settings)
    with pytest.raises(ConfigError, match="does not take prefix"):
        spark_dl.score_stream(stream, model, prefix="p", **settings)

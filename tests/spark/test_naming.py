"""Names of Spark's jobs in its own pages."""

from __future__ import annotations

import time

from pyspark import InheritableThread

import spark_dl
from spark_dl.cluster.naming import cancel_job, name_job
from spark_dl.pipeline.naming import described

DEADLINE_S = 60


def test_jobs_are_named_by_what_they_do(spark, tmp_path, descriptions):
    frame = spark.range(20).selectExpr("cast(id as float) as x", "cast(id as float) as y")
    where = tmp_path / "squares" / "dataset"
    spark_dl.prepare(frame, features=["x"], label="y", path=where, splits={"train": 1.0})
    assert "spark_dl: prepare squares" in descriptions(spark)
    assert spark.sparkContext.getLocalProperty("spark.job.description") is None


def test_a_name_that_the_user_gave_stays(spark):
    spark.sparkContext.setJobDescription("mine")
    try:
        with described(spark, "ours"):
            assert spark.sparkContext.getLocalProperty("spark.job.description") == "mine"
        assert spark.sparkContext.getLocalProperty("spark.job.description") == "mine"
    finally:
        spark.sparkContext.setLocalProperty("spark.job.description", None)


def wait_for(gate, started):
    started.touch()
    while not gate.exists():
        time.sleep(0.02)
    return gate.name


def test_of_the_jobs_of_a_group_one_is_cancelled(spark, tmp_path):
    context, gate, ends = spark.sparkContext, tmp_path / "gate", {}
    started = [tmp_path / name for name in ("ours", "theirs")]

    def work(file):
        context.setJobGroup("shared", "")
        if file.name == "ours":
            name_job(spark, "ours", "waits")
        rows = context.parallelize([file], 1).map(lambda file: wait_for(gate, file))
        try:
            ends[file.name] = rows.collect()
        except Exception as error:  # noqa: BLE001 - looked at below
            ends[file.name] = error

    threads = [InheritableThread(target=work, args=(file,), daemon=True) for file in started]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while not all(file.exists() for file in started):
        assert time.monotonic() < deadline, ends
        time.sleep(0.02)
    cancel_job(spark, "ours")
    threads[0].join(DEADLINE_S)
    gate.touch()
    threads[1].join(DEADLINE_S)
    assert "cancelled part of cancelled job tag" in str(ends["ours"])
    assert ends["theirs"] == ["gate"]

"""Names of Spark's jobs in its own pages."""

from __future__ import annotations

import spark_dl
from spark_dl.pipeline.naming import described


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

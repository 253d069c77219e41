"""How the Spark job of a launch is named and found again, whoever else has named it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spark_dl import _jvm

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["cancel_job", "name_job"]

_GROUP: Final = "spark.jobGroup.id"
_DESCRIPTION: Final = "spark.job.description"


def name_job(spark: SparkSession, name: str, description: str) -> None:
    """Name the jobs that this thread starts, so that `cancel_job` finds them.

    A job group that the caller of `train` has set stays, because they cancel by it (as notebooks
    do), and so does their description.

    Args:
        spark: the session.
        name: the jobs' tag, and their group where they have none; without commas.
        description: what Spark's pages say.
    """
    if _jvm.is_connect(spark):
        spark.addTag(name)
        return
    context = spark.sparkContext
    context.addJobTag(name)
    named = context.getLocalProperty(_DESCRIPTION)
    if not context.getLocalProperty(_GROUP):
        context.setJobGroup(name, named or description)
    elif not named:
        context.setJobDescription(description)


def cancel_job(spark: SparkSession, name: str) -> None:
    """Cancel what was named by `name_job`, and no other job of its group."""
    if _jvm.is_connect(spark):
        spark.interruptTag(name)
    else:
        spark.sparkContext.cancelJobsWithTag(name)

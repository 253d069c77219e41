"""What a worker asks of Spark beyond the application's own settings: stage-level scheduling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from spark_dl import _jvm
from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.resource import ResourceProfile
    from pyspark.sql import SparkSession

__all__ = ["WorkerResources", "cluster_conf", "worker_profile"]

_GPU_AMOUNT: Final = "spark.task.resource.gpu.amount"


@dataclass(frozen=True, kw_only=True)
class WorkerResources:
    """What one worker, which is one Spark task, gets.

    Attributes:
        cores: CPU cores; `None` for the application's ``spark.task.cpus``.
        gpus: GPUs; `None` for the application's ``spark.task.resource.gpu.amount``.
    """

    cores: int | None = None
    gpus: int | None = None

    @property
    def are_default(self) -> bool:
        """Whether the application's own settings say it all."""
        return self.cores is None and self.gpus is None

    def may_share_gpus(self, conf: Mapping[str, str]) -> bool:
        """Return whether Spark may give one GPU to several workers."""
        return self.gpus is None and 0 < float(conf.get(_GPU_AMOUNT, "0")) < 1

    def task_cpus(self, conf: Mapping[str, str]) -> int:
        """Return the cores of a worker under an application's configuration."""
        return self.cores or int(conf.get("spark.task.cpus", "1"))


def cluster_conf(spark: SparkSession) -> dict[str, str]:
    """Return the settings that Spark was started with; over Connect those that the server shows."""
    if _jvm.is_connect(spark):
        # what clients of 3.5 have too, where `conf.getAll` is of 4.0
        return {row["key"]: row["value"] for row in spark.sql("SET").collect()}
    return dict(spark.sparkContext.getConf().getAll())


def worker_profile(spark: SparkSession, resources: WorkerResources) -> ResourceProfile | None:
    """Return the resource profile of the workers' stage; `None` where Spark's settings say it all.

    Args:
        spark: the session.
        resources: of one worker.

    Raises:
        ConfigError: this Spark or its cluster manager has no stage-level scheduling; the message
            holds the settings that do the same for the whole application.
    """
    if resources.are_default:
        return None
    from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

    requests = TaskResourceRequests().cpus(resources.task_cpus(cluster_conf(spark)))
    if resources.gpus is not None:
        requests.resource("gpu", resources.gpus)
    builder: Any = ResourceProfileBuilder().require(requests)
    profile: ResourceProfile = builder.build
    if not _jvm.takes_profiles():
        raise _refused(resources, f"Spark {spark.version} has none for DataFrames (4.0 has)")
    if not _jvm.is_connect(spark):
        try:
            _jvm.register_profile(spark, profile)
        except _jvm.spark_errors() as error:
            raise _refused(resources, _jvm.brief_cause(error)) from error
    return profile


def _refused(resources: WorkerResources, reason: str) -> ConfigError:
    instead = []
    if resources.cores is not None:
        instead.append(f"spark.task.cpus={resources.cores}")
    if resources.gpus is not None:
        instead.append(f"{_GPU_AMOUNT}={resources.gpus}")
    return ConfigError(
        "cluster.cores_per_worker and cluster.gpus_per_worker need stage-level scheduling: "
        f"{reason}; start the application with {' and '.join(instead)} instead"
    )

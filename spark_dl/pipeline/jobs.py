"""The jobs `prepare` and `train`: the library, told what to do by a config."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from spark_dl.config import required
from spark_dl.pipeline.naming import described, short_name
from spark_dl.pipeline.records import job_record
from spark_dl.pipeline.training import TrainingJob, run_training
from spark_dl.schema import Feature
from spark_dl.shards import Source
from spark_dl.shards.dataset import Dataset
from spark_dl.storage import JobState, RunPaths, job_run_id

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from spark_dl.config import JobConfig
    from spark_dl.tables import PinnedTable

__all__ = ["run_prepare", "run_train"]

logger = logging.getLogger(__name__)


def run_prepare(config: JobConfig, spark: SparkSession) -> dict[str, Any]:
    """Run the job `prepare`: table → dataset.

    Args:
        config: its sections `table`, `features`, `label`, `weight`, `id` and `dataset`;
            `cluster.num_workers` where it is set, because no split gets fewer shards than ranks.
        spark: the session.

    Returns:
        What the job's last line says: ``status``, ``path``, ``fingerprint`` and the rows of each
        split.
    """
    from spark_dl.shards.prepare import write_dataset
    from spark_dl.tables import read_table

    config.check_for("prepare")
    settings = required(config.dataset, "dataset", job="prepare")
    title = f"prepare {short_name(settings.path)}"
    with job_record("prepare", config) as (job_id, record), described(spark, title):
        table = read_table(spark, required(config.table, "table", job="prepare"))
        dataset = write_dataset(
            table.df,
            features=_features(config),
            label=config.label,
            weight=config.weight,
            id=config.id,
            path=settings.path,
            splits=settings.splits,
            split_column=settings.split_column,
            seed=settings.seed,
            rows_per_record=settings.rows_per_record,
            min_shards=config.cluster.num_workers or 1,
            source=_source(table),
        )
        totals = dataset.manifest.totals
        if record is not None:
            record.succeeded({f"rows_{split}": float(rows) for split, rows in totals.items()})
    return {
        "id": job_id,
        "status": JobState.SUCCEEDED.value,
        "path": dataset.path,
        "fingerprint": dataset.manifest.fingerprint,
        "rows": totals,
    }


def run_train(config: JobConfig, spark: SparkSession) -> dict[str, Any]:
    """Run the job `train`: dataset → model.

    Args:
        config: its sections `dataset`, `model`, `training`, `cluster`, `tensorboard`, `runs` and
            `run_id`.
        spark: the session.

    Returns:
        What the job's last line says: ``run_id``, ``status``, ``metrics``, ``model_path``.
    """
    config.check_for("train")
    model = required(config.model, "model", job="train")
    runs = required(config.runs, "runs", job="train")
    dataset = Dataset.open(required(config.dataset, "dataset", job="train").path, spark)
    paths = RunPaths(runs=runs, run_id=job_run_id("train", config.run_id))
    run = run_training(
        TrainingJob(
            model_fn=model.fn,
            params=model.params,
            train_fn=model.train_fn,
            callbacks=model.callbacks,
            init_from=model.init_from,
            dataset=dataset,
            config=config.model_copy(update={"run_id": paths.run_id}),
            paths=paths,
            spark=spark,
        )
    )
    return {
        "run_id": run.run_id,
        "status": JobState.SUCCEEDED.value,
        "metrics": dict(run.metrics),
        "model_path": run.model_path,
    }


def _features(config: JobConfig) -> dict[str, Feature]:
    features = required(config.features, "features", job="prepare")
    return {name: Feature(**feature.model_dump()) for name, feature in features.items()}


def _source(table: PinnedTable) -> Source:
    return Source(table=table.table, format=table.format, version=table.version, where=table.where)

"""The jobs `prepare`, `train` and `infer`: the library, told what to do by a config."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from spark_dl import __version__
from spark_dl.config import required
from spark_dl.pipeline.library import predict
from spark_dl.pipeline.naming import described, short_name
from spark_dl.pipeline.training import TrainingJob, run_training
from spark_dl.runs import Record, read_status, recorded
from spark_dl.schema import Feature
from spark_dl.shards import Manifest, Source
from spark_dl.shards.dataset import Dataset
from spark_dl.shards.identity import identify_rows
from spark_dl.shards.selection import rows_of_split
from spark_dl.storage import JobState, RunPaths, job_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame, SparkSession

    from spark_dl.config import JobConfig
    from spark_dl.inference import ExportedModel, ModelRef
    from spark_dl.tables import PinnedTable

__all__ = ["run_infer", "run_prepare", "run_train"]

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
    with _job_record("prepare", config) as (job_id, record), described(spark, title):
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


def run_infer(config: JobConfig, spark: SparkSession) -> dict[str, Any]:
    """Run the job `infer`: table and model → predictions table.

    Args:
        config: its sections `infer`, `table`, `dataset` (for `infer.split`), `runs` and `output`.
        spark: the session.

    Returns:
        What the job's last line says: ``status``, ``model_path``, ``scoring_id``, ``output`` and
        ``rows``.
    """
    from spark_dl.inference import open_model, resolve_model, task_error
    from spark_dl.tables import read_table, write_table

    config.check_for("infer")
    output = required(config.output, "output", job="infer")
    title = f"infer {short_name(output.path)}"
    with _job_record("infer", config) as (job_id, record), described(spark, title):
        ref = resolve_model(
            config.infer.model,
            runs=required(config.runs, "runs", job="infer"),
            metric=config.infer.metric,
        )
        table = read_table(
            spark, required(config.infer.table or config.table, "table", job="infer")
        )
        rows, where = _rows_to_score(config, table)
        scoring_id = output.scoring_id or _scoring_id(
            rows, ref, table, where=where, output=output.path
        )
        predictions = predict(rows, ref.path, scoring_id=scoring_id)
        properties = _properties(open_model(ref.path), table)
        try:
            written = write_table(predictions, output, scoring_id=scoring_id, properties=properties)
        except Exception as error:
            # a row that the model cannot take is met by a task; Spark wraps what it says
            if (ours := task_error(error)) is not None:
                raise ours from error
            raise
        if record is not None:
            record.succeeded({} if written.rows is None else {"rows": float(written.rows)})
    return {
        "id": job_id,
        "status": JobState.SUCCEEDED.value,
        "model_path": ref.path,
        "model_run_id": ref.run_id,
        "scoring_id": scoring_id,
        "output": output.path,
        "rows": written.rows,
    }


def _rows_to_score(config: JobConfig, table: PinnedTable) -> tuple[DataFrame, str | None]:
    """Return the rows that `infer` scores, and what chose them."""
    split = config.infer.split
    if split is None:
        return table.df, table.where
    manifest = Manifest.read(required(config.dataset, "dataset", job="infer").path)
    # datasets differ in which rows their splits of one name hold
    chosen = f"split = {split} of {manifest.fingerprint}"
    where = f"({table.where}) and {chosen}" if table.where else chosen
    return rows_of_split(table.df, manifest, split), where


def _scoring_id(
    rows: DataFrame, ref: ModelRef, table: PinnedTable, *, where: str | None, output: str
) -> str:
    """Return an id that is the same for the same rows: without versions, their content tells."""
    from spark_dl.inference import default_scoring_id, random_scoring_id

    version = identify_rows(rows) if table.version is None else table.version
    if version is None:
        scoring_id = random_scoring_id()
        logger.warning(
            "%s has no versions and nothing tells its rows apart from other ones: this scoring is "
            "a new one, %s; set `output.scoring_id` for reruns that add nothing",
            table.table,
            scoring_id,
        )
        return scoring_id
    return default_scoring_id(
        ref.checksum, table=table.table, version=version, where=where, output=output
    )


def _properties(model: ExportedModel, table: PinnedTable) -> dict[str, str]:
    """Return what the predictions table says about where its rows came from."""
    facts = {
        "model_path": model.path,
        "model_run_id": model.run_id,
        "model_version": str(model.version),
        "model_checksum": model.checksum,
        "feature_spec": model.spec.model_dump_json(),
        "source": table.table,
        "source_version": "" if table.version is None else str(table.version),
        "version": __version__,
    }
    return {f"spark_dl.{name}": value for name, value in facts.items()}


@contextlib.contextmanager
def _job_record(job: str, config: JobConfig) -> Iterator[tuple[str, Record | None]]:
    """Give a job an id and, where the config names a folder of runs, its `status.json` there."""
    job_id = job_run_id(job, config.run_id)
    if config.runs is None:
        yield job_id, None
        return
    paths = RunPaths(runs=config.runs, run_id=job_id)
    before = read_status(paths)
    with recorded(job, paths, attempt=before.attempt + 1 if before else 1) as record:
        yield job_id, record


def _features(config: JobConfig) -> dict[str, Feature]:
    features = required(config.features, "features", job="prepare")
    return {name: Feature(**feature.model_dump()) for name, feature in features.items()}


def _source(table: PinnedTable) -> Source:
    return Source(table=table.table, format=table.format, version=table.version, where=table.where)

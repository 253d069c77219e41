"""The only composer: table → shards → cluster → training → model → table.

`prepare`, `train` and `predict` are the library's public functions; `run_prepare`, `run_train` and
`run_infer` are the same for a config, as the jobs call them.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from spark_dl._jvm import is_connect
from spark_dl.cluster.plan import LaunchRequest, Timeouts
from spark_dl.cluster.resources import choose_num_workers, wait_for_slots
from spark_dl.cluster.select import select_backend
from spark_dl.cluster.supervisor import run_on_cluster
from spark_dl.config import ClusterConfig, JobConfig, TensorBoardConfig, TrainingConfig, required
from spark_dl.errors import ConfigError
from spark_dl.monitoring import Progress, ProgressEvent, start_tensorboard
from spark_dl.runs import Record, Run, finished_run, recorded
from spark_dl.schema import Feature
from spark_dl.session import active_session
from spark_dl.shards import Manifest, Source
from spark_dl.shards.assignment import Assignment
from spark_dl.shards.dataset import Dataset
from spark_dl.shards.selection import rows_of_split
from spark_dl.storage import JobState, RunPaths, Storage, local_path, new_run_id
from spark_dl.training.entry import NOISE, PRELOAD, run_rank
from spark_dl.training.task import TrainTask

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pyspark.sql import DataFrame, SparkSession

    from spark_dl.tables import PinnedTable

    ModelFn = Callable[..., Any] | str

__all__ = ["Run", "predict", "prepare", "run_infer", "run_prepare", "run_train", "train"]

logger = logging.getLogger(__name__)
#: What workers print; an application can silence or redirect it by this name.
worker_logger = logging.getLogger("spark_dl.worker")

_DEFAULT_SPLITS: Final = {"train": 0.8, "validation": 0.1, "test": 0.1}
_TRAIN_SPLIT: Final = "train"


@dataclass(frozen=True, kw_only=True)
class _Training:
    """One training as `train` and `run_train` ask for it."""

    model_fn: ModelFn
    params: Mapping[str, Any]
    dataset: Dataset
    training: TrainingConfig
    cluster: ClusterConfig
    tensorboard: TensorBoardConfig
    paths: RunPaths
    config: str
    spark: SparkSession


def prepare(  # noqa: PLR0913 - the façade: one keyword a setting
    df: DataFrame,
    *,
    features: Sequence[str | Feature] | Mapping[str, str | Feature],
    label: str | Feature | None = None,
    weight: str | Feature | None = None,
    id: str | Sequence[str] | None = None,  # noqa: A002 - the public word
    path: str | os.PathLike[str],
    splits: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Dataset:
    """Write a DataFrame as TFRecord shards with a manifest.

    Args:
        df: the rows.
        features: model inputs: columns, or input name → column or `Feature`.
        label: column of the label.
        weight: column of the sample weight.
        id: columns that identify a row and decide its split; without it all columns do.
        path: folder of the dataset, on storage that driver and executors share.
        splits: fraction of the rows in each split; by default 0.8 train, 0.1 validation, 0.1 test.
        seed: seed of the split.

    Returns:
        The dataset; the same rows prepared alike again are reused, not rewritten.

    Raises:
        SchemaError: a column is missing or its type does not fit.
        DataError: null or ill-formed values, or an empty split.

    Example:
        >>> dataset = spark_dl.prepare(df, features=["a", "b"], label="y", path="/data/ab")  #
        doctest: +SKIP
    """
    from spark_dl.shards.prepare import write_dataset

    splits = _DEFAULT_SPLITS if splits is None else splits
    return write_dataset(
        df,
        features=features,
        label=label,
        weight=weight,
        id=id,
        path=str(path),
        splits=splits,
        seed=seed,
    )


def train(  # noqa: PLR0913 - the façade: one keyword a setting
    model_fn: ModelFn,
    dataset: Dataset | str,
    *,
    params: Mapping[str, Any] | None = None,
    num_workers: int | None = None,
    epochs: int = 1,
    global_batch_size: int = 32,
    seed: int = 0,
    runs: str | os.PathLike[str] = "runs",
    run_id: str | None = None,
    backend: Literal["auto", "tensorflowonspark", "barrier"] | None = None,
    tensorboard: bool | Literal["keep"] = True,
    spark: SparkSession | None = None,
) -> Run:
    """Train a Keras model data-parallel on the executors; blocks until the model is exported.

    Args:
        model_fn: ``model_fn(spec: FeatureSpec, params: Mapping) -> compiled keras.Model``, or
            ``"package.module:function"``. It runs on the executors.
        dataset: what `prepare` returned, or its folder.
        params: passed to `model_fn`.
        num_workers: number of workers; `None` takes all free task slots.
        epochs: passes over the split ``train``; ``validation`` is evaluated after each.
        global_batch_size: rows of one step over all workers; the workers share it equally.
        seed: decides initial weights, row order and random layers.
        runs: folder of run directories, on storage that driver and executors share.
        run_id: name of the run; `None` makes one. A run that has succeeded is returned, not
            repeated.
        backend: ``tensorflowonspark``, ``barrier`` or ``auto`` (the default), which takes the first
            where it can.
        tensorboard: whether TensorBoard runs on the driver meanwhile; ``"keep"`` leaves it running.
        spark: the session; `None` takes the active one.

    Returns:
        The finished run.

    Raises:
        ConfigError: settings that cannot work, such as a batch size that the workers do not divide.
        ResourceError: Spark cannot hold the workers.
        TrainingFailedError: a worker failed; the message starts with its rank, host and cause.

    Example:
        >>> run = spark_dl.train("models:cnn", dataset, epochs=5, runs="/data/runs")  # doctest:
        +SKIP
    """
    spark = spark or active_session()
    keep: Any = "keep" if tensorboard == "keep" else {"enabled": bool(tensorboard)}
    config = JobConfig.model_validate(
        {
            "training": {"epochs": epochs, "global_batch_size": global_batch_size, "seed": seed},
            "cluster": {"backend": backend or "auto", "num_workers": num_workers},
            "tensorboard": keep,
        }
    )
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset, spark)
    return _train(
        _Training(
            model_fn=model_fn,
            params=dict(params or {}),
            dataset=opened,
            training=config.training,
            cluster=config.cluster,
            tensorboard=config.tensorboard,
            paths=RunPaths(runs=str(runs), run_id=run_id or new_run_id()),
            config=config.to_yaml(),
            spark=spark,
        )
    )


def predict(
    df: DataFrame,
    model_path: str | os.PathLike[str],
    *,
    scoring_id: str | None = None,
    batch_size: int = 4096,
) -> DataFrame:
    """Score a DataFrame with an exported model; see `spark_dl.inference.predict`."""
    from spark_dl import inference

    return inference.predict(df, model_path, scoring_id=scoring_id, batch_size=batch_size)


def _train(job: _Training) -> Run:
    """Train, and keep `status.json` true whatever happens."""
    storage = Storage(local_path(job.paths.root))
    if (finished := finished_run(job.paths)) is not None:
        logger.info("run %s has succeeded already: nothing to do", job.paths.run_id)
        return finished
    num_workers = _check(job)
    backend = select_backend(job.spark, job.cluster.backend)
    storage.make_folder(job.paths.root)
    storage.write_atomic(job.paths.job, job.config)
    storage.write_atomic(job.paths.manifest, job.dataset.manifest.model_dump_json(indent=2))
    with recorded("train", job.paths) as record, contextlib.ExitStack() as stack:
        board = start_tensorboard(job.tensorboard, job.paths.events)
        if board is not None:
            stack.enter_context(board)
            logger.info("TensorBoard: %s", board.url)
        progress = stack.enter_context(Progress())
        results = run_on_cluster(backend, _request(job, num_workers, progress, record))
        history = results[0]["history"]
        run = Run(
            run_id=job.paths.run_id,
            path=job.paths.root,
            history=history,
            metrics={name: values[-1] for name, values in history.items() if values},
            model_path=results[0]["model_path"],
            tensorboard_url=board.url if board is not None else None,
        )
        record.succeeded(run.metrics)
    return run


def _check(job: _Training) -> int:
    """Check what can be known before the cluster starts; return the number of workers."""
    if is_connect(job.spark):
        msg = "training needs a classic Spark session: this one is a Spark Connect client"
        raise ConfigError(msg)
    local_path(job.dataset.path)
    facts = wait_for_slots(
        job.spark, job.cluster.num_workers, timeout_s=job.cluster.start_timeout_s
    )
    num_workers = choose_num_workers(job.cluster.num_workers, facts)
    job.dataset.manifest.split(_TRAIN_SPLIT)  # says so when it is missing or empty
    Assignment(
        rows=job.dataset.manifest.totals[_TRAIN_SPLIT],
        world_size=num_workers,
        rank=0,
        global_batch_size=job.training.global_batch_size,
        seed=job.training.seed,
        remainder=job.training.remainder,
    )
    return num_workers


def _request(job: _Training, num_workers: int, progress: Progress, record: Record) -> LaunchRequest:
    """Return what the cluster is to run."""
    cluster, training = job.cluster, job.training
    task = TrainTask(
        model_fn=job.model_fn,
        params=job.params,
        dataset=job.dataset.path,
        paths=job.paths,
        epochs=training.epochs,
        global_batch_size=training.global_batch_size,
        seed=training.seed,
        shuffle=training.shuffle,
        remainder=training.remainder,
        log_every_steps=training.log_every_steps,
        fingerprint=job.dataset.manifest.fingerprint,
    )

    def on_event(rank: int, event: Mapping[str, Any]) -> None:
        if event.get("kind") == "progress":
            record.running()
            fields = {name: value for name, value in event.items() if name != "kind"}
            progress.update(ProgressEvent(rank=rank, **fields))

    def on_log(rank: int, host: str, line: str) -> None:
        worker_logger.info("[rank %d on %s] %s", rank, host, line)

    return LaunchRequest(
        function=run_rank,
        value=task,
        num_workers=num_workers,
        name=job.paths.run_id,
        preload=PRELOAD,
        noise=NOISE,
        timeouts=Timeouts(
            start_s=cluster.start_timeout_s,
            stop_s=cluster.stop_timeout_s,
            heartbeat_s=cluster.heartbeat_s,
            lost_s=cluster.lost_after_s,
        ),
        on_event=on_event,
        on_log=on_log,
    )


def run_prepare(config: JobConfig, spark: SparkSession) -> dict[str, Any]:
    """Run the job `prepare`: table → dataset.

    Args:
        config: its sections `table`, `features`, `label`, `weight`, `id` and `dataset`.
        spark: the session.

    Returns:
        What the job's last line says: ``status``, ``path``, ``fingerprint`` and the rows of each
        split.
    """
    from spark_dl.shards.prepare import write_dataset
    from spark_dl.tables import read_table

    config.check_for("prepare")
    settings = required(config.dataset, "dataset", job="prepare")
    with _job_record("prepare", config) as (job_id, record):
        table = read_table(spark, required(config.table, "table", job="prepare"))
        dataset = write_dataset(
            table.df,
            features=_features(config),
            label=config.label,
            weight=config.weight,
            id=config.id,
            path=settings.path,
            splits=settings.splits,
            seed=settings.seed,
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
    run = _train(
        _Training(
            model_fn=model.fn,
            params=model.params,
            dataset=dataset,
            training=config.training,
            cluster=config.cluster,
            tensorboard=config.tensorboard,
            paths=RunPaths(runs=runs, run_id=config.run_id or new_run_id()),
            config=config.to_yaml(),
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
    from spark_dl.inference import default_scoring_id, resolve_model
    from spark_dl.tables import read_table, write_table

    config.check_for("infer")
    output = required(config.output, "output", job="infer")
    with _job_record("infer", config) as (job_id, record):
        ref = resolve_model(
            config.infer.model,
            runs=required(config.runs, "runs", job="infer"),
            metric=config.infer.metric,
        )
        table = read_table(
            spark, required(config.infer.table or config.table, "table", job="infer")
        )
        rows, where = _rows_to_score(config, table)
        scoring_id = output.scoring_id or default_scoring_id(
            ref.checksum, table=table.table, version=table.version, where=where, output=output.path
        )
        written = write_table(
            predict(rows, ref.path, scoring_id=scoring_id),
            output,
            scoring_id=scoring_id,
            properties={"spark_dl.model_path": ref.path, "spark_dl.model_checksum": ref.checksum},
        )
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
    """Return the rows that `infer` scores, and the filter that chose them."""
    split = config.infer.split
    if split is None:
        return table.df, table.where
    manifest = Manifest.read(required(config.dataset, "dataset", job="infer").path)
    where = f"({table.where}) and split = {split}" if table.where else f"split = {split}"
    return rows_of_split(table.df, manifest, split), where


@contextlib.contextmanager
def _job_record(job: str, config: JobConfig) -> Iterator[tuple[str, Record | None]]:
    """Give a job an id and, where the config names a folder of runs, its `status.json` there."""
    job_id = new_run_id(job)
    if config.runs is None:
        yield job_id, None
        return
    with recorded(job, RunPaths(runs=config.runs, run_id=job_id)) as record:
        yield job_id, record


def _features(config: JobConfig) -> dict[str, Feature]:
    features = required(config.features, "features", job="prepare")
    return {name: Feature(**feature.model_dump()) for name, feature in features.items()}


def _source(table: PinnedTable) -> Source:
    return Source(table=table.table, format=table.format, version=table.version, where=table.where)

"""The library: `prepare` and `train`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Literal

from spark_dl.config import JobConfig, build
from spark_dl.errors import ConfigError
from spark_dl.pipeline.naming import described, short_name
from spark_dl.pipeline.training import TrainingJob, run_training
from spark_dl.session import active_session
from spark_dl.shards.dataset import Dataset
from spark_dl.storage import RunPaths, new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyspark.sql import DataFrame, SparkSession

    from spark_dl.runs import Run
    from spark_dl.schema import Feature

    ModelFn = Callable[..., Any] | str

__all__ = ["prepare", "train"]

_DEFAULT_SPLITS: Final = {"train": 0.8, "validation": 0.1, "test": 0.1}


def prepare(  # noqa: PLR0913 - the façade: one keyword a setting
    df: DataFrame,
    *,
    features: Sequence[str | Feature] | Mapping[str, str | Feature],
    label: str | Feature | None = None,
    weight: str | Feature | None = None,
    id: str | Sequence[str] | None = None,  # noqa: A002 - the public word
    path: str | os.PathLike[str],
    splits: Mapping[str, float] | None = None,
    split_column: str | None = None,
    seed: int = 0,
    rows_per_record: int | None = None,
    min_shards: int = 1,
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
        split_column: instead of `splits`, the column that says each row's split: its name, or a
            boolean, true for ``validation`` and false for ``train``.
        seed: seed of the split.
        rows_per_record: rows that are packed into a record; `None` goes by their size, 1 packs
            none.
        min_shards: shards that each split has at least, if it has so many rows: the number of
            workers that will train.

    Returns:
        The dataset; the same rows prepared alike again are reused, not rewritten.

    Raises:
        ConfigError: the splits are wrong.
        SchemaError: a column is missing or its type does not fit.
        DataError: null or ill-formed values, or an empty split.

    Example:
        >>> spark_dl.prepare(df, features=["a"], label="y", path="/data/a")  # doctest: +SKIP
    """
    from spark_dl.shards.prepare import write_dataset

    if splits is not None and split_column is not None:
        msg = "prepare(): give either splits or split_column, not both"
        raise ConfigError(msg)
    with described(df.sparkSession, f"prepare {short_name(str(path))}"):
        return write_dataset(
            df,
            features=features,
            label=label,
            weight=weight,
            id=id,
            path=str(path),
            splits=_DEFAULT_SPLITS if splits is None else splits,
            split_column=split_column,
            seed=seed,
            rows_per_record=rows_per_record,
            min_shards=min_shards,
        )


def train(  # noqa: PLR0913 - the façade: one keyword a setting
    model_fn: ModelFn | None,
    dataset: Dataset | str,
    *,
    train_fn: ModelFn | None = None,
    params: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] | Callable[..., Any] | str | None = None,
    init_from: str | os.PathLike[str] | None = None,
    num_workers: int | None = None,
    epochs: int = 1,
    global_batch_size: int = 32,
    seed: int = 0,
    runs: str | os.PathLike[str] = "runs",
    run_id: str | None = None,
    backend: Literal["auto", "tensorflowonspark", "barrier"] | None = None,
    tensorboard: bool | Literal["keep"] = True,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    spark: SparkSession | None = None,
) -> Run:
    """Train a Keras model data-parallel on the executors; blocks until the model is exported.

    Args:
        model_fn: ``model_fn(spec: FeatureSpec, params: Mapping) -> compiled keras.Model``, or
            ``"package.module:function"``. It runs on the executors.
        dataset: what `prepare` returned, or its folder.
        train_fn: a training loop of one's own instead of `model_fn`, which is then `None`:
            ``train_fn(ctx)`` runs on every worker and may return a Keras model to export; `ctx` is
            a `spark_dl.training.own_loop.OwnLoop`.
        params: passed to `model_fn`.
        callbacks: Keras callbacks, of all ranks; or a function ``callbacks(rank)`` that runs on the
            executors and makes them, itself or as ``"package.module:function"``: `rank` has
            ``rank``, ``world_size``, ``is_chief``, ``paths`` and ``params``. At an epoch's end they
            see metrics over all ranks, so that all ranks decide alike, and what they remember is
            part of a checkpoint.
        init_from: weights to start from: a run id in `runs`, ``"latest"``, the path of an exported
            version, or of a ``.keras`` or ``.weights.h5`` file. The layers must be the same; freeze
            some in `model_fn` by ``layer.trainable = False``. No resume: epochs and optimizer begin
            anew.
        num_workers: number of workers; `None` takes all free task slots.
        epochs: passes over the split ``train``; ``validation`` is evaluated after each.
        global_batch_size: rows of one step over all workers; the workers share it equally.
        seed: decides initial weights, row order and random layers.
        runs: folder of run directories, on storage that driver and executors share.
        run_id: name of the run; `None` makes one. A run that has succeeded is returned, not
            repeated; one that failed, was cancelled or lost its driver goes on from its newest
            checkpoint.
        backend: ``tensorflowonspark``, ``barrier`` or ``auto`` (the default), which takes the first
            where it can.
        tensorboard: whether TensorBoard runs on the driver meanwhile; ``"keep"`` leaves it running.
        config: further settings, nested as in a job's YAML, such as
            ``{"training": {"checkpoint": {"every_steps": 500}}, "cluster": {"max_restarts": 5}}``.
        spark: the session; `None` takes the active one.

    Returns:
        The finished run.

    Raises:
        ConfigError: settings that cannot work, such as a batch size that the workers do not divide.
        ResourceError: Spark cannot hold the workers.
        TrainingFailedError: a worker failed; the message starts with its rank, host and cause.

    Example:
        >>> run = spark_dl.train("models:cnn", dataset, epochs=5)  # doctest: +SKIP
    """
    spark = spark or active_session()
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset, spark)
    paths = RunPaths(runs=str(runs), run_id=run_id or new_run_id())
    values: dict[str, Any] = {
        "dataset": {
            "path": opened.path,
            "splits": dict(opened.manifest.splits),
            "split_column": opened.manifest.split_column,
            "seed": opened.manifest.seed,
        },
        "training": {"epochs": epochs, "global_batch_size": global_batch_size, "seed": seed},
        "cluster": {"backend": backend or "auto", "num_workers": num_workers},
        "tensorboard": "keep" if tensorboard == "keep" else {"enabled": bool(tensorboard)},
        "runs": paths.runs,
        "run_id": paths.run_id,
    }
    _add(values, config or {})
    if (model_fn is None) == (train_fn is None):
        msg = "train(): give either model_fn or train_fn, and None for the other"
        raise ConfigError(msg)
    named = {"fn": model_fn, "train_fn": train_fn, "callbacks": callbacks}
    names = {name: function for name, function in named.items() if isinstance(function, str)}
    if {"fn", "train_fn"} & set(names):
        values["model"] = {**names, "params": dict(params or {})}
        if init_from is not None:
            values["model"]["init_from"] = os.fspath(init_from)
    return run_training(
        TrainingJob(
            model_fn=model_fn,
            train_fn=train_fn,
            params=dict(params or {}),
            callbacks=callbacks,
            init_from=None if init_from is None else os.fspath(init_from),
            dataset=opened,
            config=build(JobConfig, values, where="train()"),
            paths=paths,
            spark=spark,
        )
    )


def _add(values: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Add further settings to those that arguments gave.

    Raises:
        ConfigError: a setting is an argument of its own.
    """
    for section, further in config.items():
        given = values.get(section, {})
        twice = (
            [f"{section}.{name}" for name in further if name in given]
            if isinstance(given, dict) and isinstance(further, dict)
            else [section]
        )
        if twice:
            msg = f"train(): {', '.join(twice)} in config: give it as an argument of train()"
            raise ConfigError(msg)
        values[section] = {**given, **further}

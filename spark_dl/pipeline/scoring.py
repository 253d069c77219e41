"""The library: `predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spark_dl.errors import ModelError
from spark_dl.inference import ExportedModel, open_any
from spark_dl.inference import predict as apply
from spark_dl.inference.resolve import model_path
from spark_dl.runs import Run

if TYPE_CHECKING:
    import os

    from pyspark.sql import DataFrame, SparkSession

    AnyModel = str | os.PathLike[str] | Run | ExportedModel

__all__ = ["find_model", "predict"]


def predict(
    df: DataFrame,
    model: AnyModel,
    *,
    runs: str | os.PathLike[str] = "runs",
    metric: str | None = None,
    **settings: Any,  # noqa: ANN401 - those of `inference.predict`, which documents them
) -> DataFrame:
    """Score a DataFrame with a model.

    Args:
        df: the rows, batch or streaming.
        model: a run or its id; ``latest`` or ``best`` of the runs; the path of an exported version,
            of any SavedModel or of a ``.keras`` file.
        runs: folder of run directories, where run ids, ``latest`` and ``best`` are looked for.
        metric: what ``best`` goes by, such as ``val_loss``.
        settings: ``inputs``, ``scoring_id``, ``batch_size``, ``prefix``, ``as_struct``,
            ``on_error`` and ``allow_lambda``, see `spark_dl.inference.predict`.

    Returns:
        The rows with the predictions and where they came from.

    Raises:
        ModelError: there is no such model, or the table does not fit it.
        ConfigError: a setting is wrong.

    Example:
        >>> spark_dl.predict(df, run, inputs={"x": "pixels"})  # doctest: +SKIP
    """
    allow_lambda = bool(settings.get("allow_lambda", False))
    found = find_model(model, df.sparkSession, runs=runs, metric=metric, allow_lambda=allow_lambda)
    return apply(df, found, **settings)


def find_model(
    model: AnyModel,
    spark: SparkSession,
    *,
    runs: str | os.PathLike[str] = "runs",
    metric: str | None = None,
    allow_lambda: bool = False,
) -> ExportedModel:
    """Open what a caller of the library calls a model; see `predict`.

    Raises:
        ModelError: there is none.
        ConfigError: ``best`` without a metric.
    """
    if isinstance(model, ExportedModel):
        return model
    if isinstance(model, Run):
        if not model.model_path:
            msg = f"run {model.run_id} has exported no model: its train_fn returned none"
            raise ModelError(msg)
        return open_any(model.model_path, spark)
    path = model_path(model, runs=runs, metric=metric)
    return open_any(path, spark, allow_lambda=allow_lambda)

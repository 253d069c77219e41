"""The library's `evaluate` and the job of that name: a model's figures over all rows of a table."""

from __future__ import annotations

import dataclasses
import json
import posixpath
from typing import TYPE_CHECKING, Any

from spark_dl.config import required
from spark_dl.inference.evaluate import evaluate as compute
from spark_dl.pipeline.infer import given_inputs, rows_to_score
from spark_dl.pipeline.naming import described
from spark_dl.pipeline.records import job_record
from spark_dl.pipeline.report import html_report
from spark_dl.pipeline.scoring import find_model
from spark_dl.storage import JobState, Storage, finite, join, new_run_id, normalise

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from pyspark.sql import DataFrame, SparkSession

    from spark_dl.config import JobConfig
    from spark_dl.inference.figures import Evaluation
    from spark_dl.inference.inputs import InputColumns
    from spark_dl.inference.model import ExportedModel
    from spark_dl.pipeline.scoring import AnyModel

__all__ = ["evaluate", "run_evaluate"]


def evaluate(  # noqa: PLR0913 - the façade: one keyword a setting
    df: DataFrame,
    model: AnyModel,
    *,
    label: str | None = None,
    weight: str | None = None,
    inputs: Mapping[str, InputColumns] | InputColumns | None = None,
    runs: str | os.PathLike[str] = "runs",
    metric: str | None = None,
    batch_size: int | None = None,
    allow_lambda: bool = False,
) -> Evaluation:
    """Evaluate a model on the cluster: exact figures over all rows, each counted once.

    Args:
        df: the rows, with the label.
        model: as for `predict`.
        label: column of the label; by default the one that the model was trained on.
        weight: column of the sample weights; by default the one that the model was trained on.
        inputs: as for `predict`.
        runs: folder of run directories; of a model that no run made, the evaluation goes there.
        metric: what ``best`` goes by.
        batch_size: rows that the model gets at once; it changes no figure.
        allow_lambda: whether a ``.keras`` file may hold Lambda layers, which are code.

    Returns:
        Metrics (the model's own, equal to Keras' on one machine) and confusion matrix, also written
        as ``evaluation.json`` and ``report.html`` below ``<run>/evaluations/``.

    Raises:
        ModelError: there is no such model, or the table does not fit it.
        SchemaError: there is no such label.
        DataError: the table has no rows, or bad ones.

    Example:
        >>> spark_dl.evaluate(test_rows, run).metrics["accuracy"]  # doctest: +SKIP
    """
    found = find_model(model, df.sparkSession, runs=runs, metric=metric, allow_lambda=allow_lambda)
    with described(df.sparkSession, _title(found)):
        result = compute(
            df, found, label=label, weight=weight, inputs=inputs, batch_size=batch_size
        )
    return _write(result, found, normalise(runs), name=new_run_id("evaluation"))


def run_evaluate(config: JobConfig, spark: SparkSession) -> dict[str, Any]:
    """Run the job `evaluate`: table and model → figures.

    Args:
        config: its sections `infer`, `table`, `label`, `weight`, `dataset` (for `infer.split`) and
            `runs`.
        spark: the session.

    Returns:
        What the job's last line says: ``status``, ``model_path``, ``rows``, ``metrics`` and
        ``path``, the folder of the report.
    """
    from spark_dl.tables import read_table

    config.check_for("evaluate")
    runs = required(config.runs, "runs", job="evaluate")
    with job_record("evaluate", config) as (job_id, record):
        model = find_model(
            config.infer.model,
            spark,
            runs=runs,
            metric=config.infer.metric,
            allow_lambda=config.infer.allow_lambda,
        )
        table = read_table(
            spark, required(config.infer.table or config.table, "table", job="evaluate")
        )
        with described(spark, _title(model)):
            rows, _ = rows_to_score(config, table)
            result = compute(
                rows,
                model,
                label=config.label,
                weight=config.weight,
                inputs=given_inputs(config),
                batch_size=config.infer.batch_size,
            )
        result = _write(result, model, normalise(runs), name=job_id)
        if record is not None:
            record.succeeded({**result.metrics, "rows": float(result.rows)})
    return {
        "id": job_id,
        "status": JobState.SUCCEEDED.value,
        "model_path": result.model_path,
        "model_run_id": result.run_id,
        "rows": result.rows,
        "metrics": dict(result.metrics),
        "path": result.path,
    }


def _title(model: ExportedModel) -> str:
    return f"evaluate {model.run_id or model.path}"


def _write(result: Evaluation, model: ExportedModel, runs: str, *, name: str) -> Evaluation:
    """Write an evaluation into the run directory that its model came from."""
    root = posixpath.dirname(posixpath.dirname(model.path))
    of_run = model.run_id is not None and posixpath.basename(root) == model.run_id
    folder = join(root if of_run else runs, "evaluations", name)
    result = dataclasses.replace(result, path=folder)
    storage = Storage(folder)
    facts = {**dataclasses.asdict(result), "metrics": finite(result.metrics)}
    storage.make_folder(folder)
    storage.write_atomic(join(folder, "evaluation.json"), json.dumps(facts, indent=2))
    storage.write_atomic(join(folder, "report.html"), html_report(result))
    return result

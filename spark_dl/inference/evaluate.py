"""Evaluate a model on the cluster: exact metrics and the confusion matrix.

Driver side.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator  # noqa: TC003 - Spark reads the annotations of the task's functions
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from spark_dl._jvm import brief_cause, spark_errors
from spark_dl.errors import DataError, MetricError, ModelError, SchemaError
from spark_dl.inference.apply import for_executors, predict, table_columns
from spark_dl.inference.figures import Confusion, Evaluation, confusion_of
from spark_dl.inference.inputs import bind_inputs, remap_inputs, usual_batch_size
from spark_dl.inference.keras_metrics import MetricsTask, merged_metrics, partial_metrics
from spark_dl.inference.labels import label_output
from spark_dl.inference.loading import ModelFile
from spark_dl.inference.task_errors import task_error
from spark_dl.inference.udf import crossing, task_compute
from spark_dl.schema.derive import quoted, select_columns
from spark_dl.storage import join
from spark_dl.storage.checksum import file_checksum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Column, DataFrame

    from spark_dl.inference.inputs import InputColumns
    from spark_dl.inference.model import ExportedModel

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)

_LABEL: Final = "spark_dl_label"
_WEIGHT: Final = "spark_dl_weight"
_WHOLE: Final = ("tinyint", "smallint", "int", "bigint", "boolean")
_BINARY: Final = 2


def evaluate(
    df: DataFrame,
    model: ExportedModel,
    *,
    label: str | None = None,
    weight: str | None = None,
    inputs: Mapping[str, InputColumns] | InputColumns | None = None,
    batch_size: int | None = None,
) -> Evaluation:
    """Evaluate a model over all rows of a DataFrame; every row counts once.

    Args:
        df: the rows.
        model: what `open_any` returned.
        label: column of the label; by default the one that the model was trained on.
        weight: column of the sample weights, for the metrics that the model was compiled to weigh;
            by default the one that it was trained on, if the table has it.
        inputs: as for `predict`.
        batch_size: rows that the model gets at once; it changes no figure.

    Returns:
        The metrics, equal to Keras' own on one machine, and the confusion matrix.

    Raises:
        ModelError: the table does not fit the model.
        MetricError: a metric that the model was compiled with is no sum over rows.
        SchemaError: there is no such label or weight column.
        DataError: the table has no rows, or bad ones.
    """
    name = _label_name(df, model, label)
    truth = _label_column(df, model, name)
    own = _own_metrics(df, model, name, truth, weight=weight, inputs=inputs, size=batch_size)
    scored = predict(
        df.withColumn(_LABEL, truth), model, inputs=inputs, batch_size=batch_size, prefix="_guess"
    )
    confusion, plain, rows = _compare(scored, model)
    return Evaluation(
        rows=rows,
        metrics=plain if own is None else own,
        confusion=confusion,
        model_path=model.path,
        run_id=model.run_id,
    )


def _label_name(df: DataFrame, model: ExportedModel, label: str | None) -> str:
    entry = model.spec.label
    name = label or (entry.column if entry else None)
    if name is None:
        msg = f"the model at {model.path} does not say which column is the label: give label=…"
        raise SchemaError(msg)
    if name not in df.columns:
        raise SchemaError.missing_column(name, df.columns, role="label")
    return name


def _label_column(df: DataFrame, model: ExportedModel, name: str) -> Column:
    """Return the label as the model learnt it: the number, or the class of the text."""
    from pyspark.sql import functions as sf

    kind = df.schema[name].dataType.simpleString()
    entry = model.spec.label
    if entry is not None:
        return select_columns([entry.model_copy(update={"column": name, "source_type": kind})])[0]
    if kind in _WHOLE:
        return sf.col(quoted(name)).cast("bigint")
    return sf.expr(f"try_cast({quoted(name)} AS float)")


def _own_metrics(  # noqa: PLR0913 - what `evaluate` was given
    df: DataFrame,
    model: ExportedModel,
    label: str,
    truth: Column,
    *,
    weight: str | None,
    inputs: Mapping[str, InputColumns] | InputColumns | None,
    size: int | None,
) -> dict[str, float] | None:
    """Return the metrics that the model was compiled with; `None` if it has none."""
    file = _keras_file(model)
    if file is None:
        return None
    wanted = remap_inputs(model.inputs, inputs, model=model.path)
    bound = bind_inputs(wanted, table_columns(df.schema), model=model.path)
    weights = _weight_column(df, model, weight)
    task = MetricsTask(
        file=for_executors(file, df.sparkSession),
        inputs=bound,
        label=label,
        has_weight=bool(weights),
        batch_size=size or usual_batch_size(bound),
    )
    columns = [crossing(one).alias(f"input_{i}") for i, one in enumerate(bound)]
    rows = df.select(*columns, truth.alias(_LABEL), *weights)
    try:
        found = _in_one_task(rows, task)
    except spark_errors() as error:
        ours = task_error(error)
        if isinstance(ours, ModelError) and not isinstance(ours, MetricError):
            logger.warning("the model's own metrics cannot be computed: %s", ours)
            return None
        raise (ours or DataError(f"the evaluation failed: {brief_cause(error)}")) from error
    return found


def _keras_file(model: ExportedModel) -> ModelFile | None:
    if model.kind == "saved_model":
        return None
    path = model.path if model.kind == "keras" else join(model.path, "model.keras")
    return ModelFile(
        path=path, checksum=file_checksum(path), kind="keras", allow_lambda=model.allow_lambda
    )


def _weight_column(df: DataFrame, model: ExportedModel, weight: str | None) -> list[Column]:
    from pyspark.sql import functions as sf

    entry = model.spec.weight
    if weight is not None and weight not in df.columns:
        raise SchemaError.missing_column(weight, df.columns, role="weight")
    name = weight or (entry.column if entry and entry.column in df.columns else None)
    return [] if name is None else [sf.col(quoted(name)).cast("float").alias(_WEIGHT)]


def _in_one_task(rows: DataFrame, task: MetricsTask) -> dict[str, float]:
    """Sum over the rows where they are, then compute the metrics of the sums in one task."""

    def partial(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = partial_metrics(batches, task, task_compute())
        if found is not None:
            yield pa.RecordBatch.from_arrays([pa.array([found])], ["part"])

    def merged(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [part for batch in batches for part in batch.column(0).to_pylist()]
        if parts:
            found = json.dumps(merged_metrics(parts, task, task_compute()))
            yield pa.RecordBatch.from_arrays([pa.array([found])], ["metrics"])

    first: Any = partial
    second: Any = merged
    parts = rows.mapInArrow(first, "part string").repartition(1)
    found = parts.mapInArrow(second, "metrics string").collect()
    if not found:
        msg = "the table has no rows (after its filter, if there is one): nothing to evaluate"
        raise DataError(msg)
    metrics: dict[str, float] = json.loads(found[0]["metrics"])
    return metrics


def _compare(
    scored: DataFrame, model: ExportedModel
) -> tuple[Confusion | None, dict[str, float], int]:
    """Return the confusion matrix or the errors of numbers, and the rows."""
    from pyspark.sql import functions as sf

    names = model.output_columns("_guess")
    classes = _classes(model, scored.schema[_LABEL].dataType.simpleString())
    if classes is None:
        column = sf.col(quoted(next(iter(names.values()))))
        if len(names) > 1 or scored.select(column).dtypes[0][1].startswith("array"):
            return None, {}, int(scored.count())
        gap = column - sf.col(_LABEL)
        row = scored.agg(
            sf.count(sf.lit(1)).alias("rows"),
            sf.avg(gap * gap).alias("mean_squared_error"),
            sf.avg(sf.abs(gap)).alias("mean_absolute_error"),
        ).first()
        errors = row.asDict() if row else {}
        count = int(errors.pop("rows", 0))
        return None, {name: float(v) for name, v in errors.items() if v is not None}, count
    output, num_classes = classes
    guess = _guess(sf.col(quoted(names[output])), model, output)
    pairs = scored.groupBy(sf.col(_LABEL).alias("true"), guess.alias("guess")).count().collect()
    counts = [pair.asDict() for pair in pairs]
    confusion = confusion_of(counts, num_classes, model.vocabulary)
    rows = sum(pair["count"] for pair in pairs)
    return confusion, {"accuracy": confusion.accuracy}, rows


def _classes(model: ExportedModel, label_type: str) -> tuple[str, int] | None:
    """Return the output that tells classes apart and their number, if there is one."""
    if model.vocabulary:
        output = label_output(model.outputs, len(model.vocabulary))
        return None if output is None else (output, len(model.vocabulary))
    if label_type not in _WHOLE:
        return None
    vectors = [
        (name, output.shape[0])
        for name, output in model.outputs.items()
        if len(output.shape) == 1 and output.dtype.startswith("float")
    ]
    fitting = [(name, size) for name, size in vectors if size is not None and size >= _BINARY]
    return fitting[0] if len(fitting) == 1 else None


def _guess(column: Column, model: ExportedModel, output: str) -> Column:
    from pyspark.sql import functions as sf

    if model.outputs[output].dims:
        return (sf.call_function("array_position", column, sf.array_max(column)) - 1).cast("int")
    return (column > (0.0 if model.from_logits else 0.5)).cast("int")

"""DataFrame in, DataFrame with predictions out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, get_args

from spark_dl._jvm import delegation_tokens
from spark_dl.errors import ConfigError, ModelError
from spark_dl.inference.foreign import open_any
from spark_dl.inference.inputs import (
    TableColumn,
    bind_inputs,
    remap_inputs,
    usual_batch_size,
)
from spark_dl.inference.labels import Labels, label_output
from spark_dl.inference.matching import check_new_columns, refuse_twice
from spark_dl.inference.model import OUTPUT_TYPES
from spark_dl.inference.packing import pack, unpacked
from spark_dl.inference.predictor import ERROR_FIELD, OnError, ScoringTask
from spark_dl.inference.scoring import random_scoring_id
from spark_dl.inference.udf import scored_column, scored_rows, way_into_python
from spark_dl.schema.derive import quoted
from spark_dl.storage import is_local

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

    from spark_dl.inference.inputs import InputColumns
    from spark_dl.inference.loading import ModelFile
    from spark_dl.inference.model import ExportedModel
    from spark_dl.inference.udf import Way

__all__ = ["LINEAGE_COLUMNS", "for_executors", "predict", "table_columns"]

#: What every row of predictions says about where it came from.
LINEAGE_COLUMNS: Final = ("model_run_id", "model_version", "scoring_id")

#: Columns that exist only within the query.
_RESULT: Final = "spark_dl_result"
_NAME: Final = "spark_dl_name"


def predict(  # noqa: PLR0913 - the façade: one keyword a setting
    df: DataFrame,
    model: str | os.PathLike[str] | ExportedModel,
    *,
    inputs: Mapping[str, InputColumns] | InputColumns | None = None,
    scoring_id: str | None = None,
    batch_size: int | None = None,
    prefix: str = "prediction",
    as_struct: bool = False,
    on_error: OnError = "fail",
    allow_lambda: bool = False,
) -> DataFrame:
    """Score a DataFrame with a model.

    Only the columns that the model takes cross to Python; the model is loaded once per Python
    worker and runs once per row, also under filters on its predictions, and not at all where
    nobody reads them (``count()``). Nothing is computed until the result is used. A streaming
    DataFrame gives a streaming one.

    Args:
        df: the rows, batch or streaming; every column is kept.
        model: folder of an exported version (`Run.model_path`) or of any SavedModel, a ``.keras``
            file, or what `open_any` returned.
        inputs: input name to column, to `Feature(column, cast=…)`, or to a list of scalar columns
            that make a vector; of a model with one input that alone. A dot leads into a struct. By
            default the columns that the model was trained on, else those of the inputs' names.
        scoring_id: names this scoring in the column `scoring_id`; `None` makes a new one.
        batch_size: rows that the model gets at once, at least 1; by default 4096, or fewer where a
            row's inputs are large.
        prefix: name of the prediction column; with several outputs ``<prefix>_<output>`` each.
        as_struct: whether the outputs are fields of one struct column called `prefix` instead.
        on_error: what a row does that the model cannot take (a null, a wrong length, a value
            outside of what it knows): ``fail`` ends the job, with ``null`` and ``quarantine`` its
            predictions are null and ``<prefix>_error`` says why; the job `infer` then moves
            quarantined rows into a table of their own.
        allow_lambda: whether a ``.keras`` file may hold Lambda layers, which are code.

    Returns:
        The columns of `df`; one column an output (a number, or an array for a vector); if the label
        was text, ``<prefix>_label`` and ``<prefix>_probability``; `model_run_id` (string),
        `model_version` (int), both null if no run of ours made it, `scoring_id` (string).

    Raises:
        ModelError: no model there, or the table does not fit it: lists every missing column, wrong
            type and name that is taken. Bad rows are met only by the tasks, see `task_error`.
        ConfigError: a setting is wrong.

    Example:
        >>> spark_dl.predict(df, run.model_path).select("id", "prediction")  # doctest: +SKIP
    """
    from spark_dl.inference.model import ExportedModel

    if batch_size is not None and batch_size < 1:
        msg = f"batch_size must be at least 1, got {batch_size}"
        raise ConfigError(msg)
    if on_error not in get_args(OnError):
        msg = f"on_error must be one of {', '.join(get_args(OnError))}, got {on_error!r}"
        raise ConfigError(msg)
    if not isinstance(model, ExportedModel):
        model = open_any(model, df.sparkSession, allow_lambda=allow_lambda)
    wanted = remap_inputs(model.inputs, inputs, model=model.path)
    bound = bind_inputs(wanted, table_columns(df.schema), model=model.path)
    task = ScoringTask(
        file=for_executors(model.file, df.sparkSession),
        inputs=bound,
        outputs=model.outputs,
        fields={name: f"output_{i}" for i, name in enumerate(model.outputs)},
        batch_size=batch_size or usual_batch_size(bound),
        labels=_labels(model),
        on_error=on_error,
    )
    way = way_into_python(df, task)
    if way == "arrow_udf":
        task = pack(task, df.sparkSession)
    columns = _result_columns(model, task, prefix, as_struct=as_struct)
    check_new_columns([*columns, *LINEAGE_COLUMNS], df.columns)
    refuse_twice(df.columns)
    return _with_predictions(df, task, columns, way).withColumns(
        _lineage(model, scoring_id or random_scoring_id())
    )


def for_executors(file: ModelFile, spark: SparkSession) -> ModelFile:
    """Return a model's file with the tokens that open it, where a storage may ask for some."""
    if is_local(file.path):
        return file
    return dataclasses.replace(file, tokens=delegation_tokens(spark))


def table_columns(schema: StructType) -> dict[str, TableColumn]:
    """Return the columns of a table and the fields of its structs, by their dotted names."""
    from pyspark.sql.types import StructType

    found: dict[str, TableColumn] = {}

    def add(fields: StructType, path: str, sql: str) -> None:
        for field in fields.fields:
            name, own = path + field.name, sql + quoted(field.name)
            # a column called "a.b" comes before the field b of a column a
            found.setdefault(name, TableColumn(type=field.dataType.simpleString(), sql=own))
            if isinstance(field.dataType, StructType):
                add(field.dataType, f"{name}.", f"{own}.")

    for field in schema.fields:
        kind = field.dataType.simpleString()
        found[field.name] = TableColumn(type=kind, sql=quoted(field.name))
    add(schema, "", "")
    return found


def _labels(model: ExportedModel) -> Labels | None:
    vocabulary = model.vocabulary
    output = label_output(model.outputs, len(vocabulary)) if vocabulary else None
    if vocabulary is None or output is None:
        return None
    return Labels(
        output=output,
        vocabulary=vocabulary,
        from_logits=model.from_logits,
        fields=("label", "probability"),
    )


def _result_columns(
    model: ExportedModel, task: ScoringTask, prefix: str, *, as_struct: bool
) -> dict[str, Column]:
    """Return the columns that the predictions add, out of the struct that the tasks return."""
    from pyspark.sql import functions as sf

    def field(name: str) -> Column:
        return sf.col(_RESULT).getField(name)

    def head(name: str) -> Column:
        found, element = field(task.fields[name]), OUTPUT_TYPES[model.outputs[name].dtype][0]
        return unpacked(found, element) if name in task.packed else found

    if as_struct:
        columns = {prefix: sf.struct(*(head(name).alias(name) for name in model.outputs))}
    else:
        names = model.output_columns(prefix)
        columns = {names[name]: head(name) for name in model.outputs}
    if task.labels is not None:
        columns |= {f"{prefix}_{name}": field(name) for name in task.labels.fields}
    if task.on_error != "fail":
        error = f"{prefix}_error"
        if as_struct:
            columns[prefix] = sf.when(field(ERROR_FIELD).isNull(), columns[prefix])
        columns[error] = field(ERROR_FIELD)
    if len({name.lower() for name in columns}) < len(model.outputs) * (not as_struct):
        msg = f"outputs of one name: {', '.join(columns)}; take as_struct=True"
        raise ModelError(msg)
    return columns


def _with_predictions(
    df: DataFrame, task: ScoringTask, columns: Mapping[str, Column], way: Way
) -> DataFrame:
    """Add the predictions behind a wall that Spark's optimizer moves none of them through.

    A plain column would be computed again for each filter on a prediction, because Spark pushes
    filters through projections. An unpivot of the one column is the wall: filters on its result
    stay above it, those on input columns pass, and where nobody reads the result Spark drops it.
    """
    kept: list[Column | str] = [quoted(name) for name in df.columns]
    kind = _result_type(task)
    if way == "map_in_arrow":
        scored = scored_rows(df, task, kind, _RESULT)  # which is a wall itself
    else:
        result = scored_column(task, kind)
        scored = df.withColumn(_RESULT, result).unpivot(kept, [_RESULT], _NAME, _RESULT)
    return scored.select(*kept, *(column.alias(name) for name, column in columns.items()))


def _result_type(task: ScoringTask) -> str:
    fields = {
        task.fields[name]: "binary" if name in task.packed else output.spark_type
        for name, output in task.outputs.items()
    }
    if task.labels is not None:
        fields |= dict(zip(task.labels.fields, ("string", "float"), strict=True))
    if task.on_error != "fail":
        fields[ERROR_FIELD] = "string"
    return f"struct<{', '.join(f'{name}: {kind}' for name, kind in fields.items())}>"


def _lineage(model: ExportedModel, scoring_id: str) -> dict[str, Column]:
    from pyspark.sql import functions as sf

    return {
        "model_run_id": sf.lit(model.run_id).cast("string"),
        "model_version": sf.lit(model.version).cast("int"),
        "scoring_id": sf.lit(scoring_id),
    }

"""DataFrame in, DataFrame with predictions out."""

from __future__ import annotations

import re
from collections.abc import Iterator  # noqa: TC003 - Spark reads the annotations of the task's functions
from typing import TYPE_CHECKING, Any

import pandas as pd  # noqa: TC002 - as above
import pyarrow as pa

from spark_dl import errors
from spark_dl.errors import ConfigError, SparkDLError
from spark_dl.inference.matching import check_columns, check_new_columns, locate
from spark_dl.inference.model import open_model
from spark_dl.inference.predictor import Compute, Predictor, ScoringTask, load_predictor
from spark_dl.inference.scoring import random_scoring_id
from spark_dl.schema.derive import select_columns

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from pyspark.sql import Column, DataFrame

    from spark_dl.inference.model import ExportedModel

__all__ = ["LINEAGE_COLUMNS", "predict", "task_error"]

#: What every row of predictions says about where it came from.
LINEAGE_COLUMNS = ("model_run_id", "model_version", "scoring_id")


def predict(
    df: DataFrame,
    model_path: str | os.PathLike[str],
    *,
    scoring_id: str | None = None,
    batch_size: int = 4096,
    prefix: str = "prediction",
) -> DataFrame:
    """Score a DataFrame with an exported model.

    Only the feature columns cross to Python, matched by the feature spec beside the model and cast
    exactly as `prepare` cast them; the model is loaded once per Python worker and runs once per
    row, also under filters on its predictions. Nothing is computed until the result is used.

    Args:
        df: the rows; every column is kept.
        model_path: folder of an exported version, such as `Run.model_path`.
        scoring_id: names this scoring in the column `scoring_id`; `None` makes a new one.
        batch_size: most rows that the model gets at once, at least 1.
        prefix: name of the prediction column; with several outputs ``<prefix>_<output>`` each.

    Returns:
        The columns of `df`, one column an output (a number, or an array for a vector), and
        `model_run_id` (string), `model_version` (int), `scoring_id` (string).

    Raises:
        ModelError: no model there, or the table does not fit it: lists every missing column, wrong
            type and name that is taken. A null or an array of wrong length is met only by the
            tasks, see `task_error`.
        ConfigError: the batch size is less than 1.

    Example:
        >>> spark_dl.predict(df, run.model_path).select("id", "prediction")  # doctest: +SKIP
    """
    if batch_size < 1:
        msg = f"batch_size must be at least 1, got {batch_size}"
        raise ConfigError(msg)
    model = open_model(model_path)
    columns = model.output_columns(prefix)
    check_new_columns([*columns.values(), *LINEAGE_COLUMNS], df.columns)
    features = model.spec.features
    check_columns(
        features, {f.name: f.dataType.simpleString() for f in df.schema.fields}, model=model.path
    )
    task = ScoringTask(
        path=model.path,
        checksum=model.checksum,
        features=features,
        outputs=model.outputs,
        columns=columns,
        batch_size=batch_size,
    )
    return _with_predictions(df, model, task, scoring_id or random_scoring_id())


def _with_predictions(
    df: DataFrame, model: ExportedModel, task: ScoringTask, scoring_id: str
) -> DataFrame:
    from pyspark.sql import functions as sf

    types = {field.name: field.dataType.simpleString() for field in df.schema.fields}
    # `prepare` made its columns by the same expressions; here the table's own types count, not
    # those of the table that the model was trained on
    found = [(entry, locate(entry, types)) for entry in task.features]
    inputs = select_columns(
        entry.model_copy(update={"column": column, "source_type": types[column]})
        for entry, column in found
    )
    struct = ", ".join(
        f"{_quoted(task.columns[name])}: {output.spark_type}"
        for name, output in task.outputs.items()
    )
    # A plain struct column would be computed again for each filter on a prediction, because Spark
    # pushes filters through projections. A generator's output is a wall to such filters, while
    # those on input columns still pass.
    predictions = sf.inline_outer(sf.array(_vectorized(task, f"struct<{struct}>")(*inputs)))
    return df.select("*", predictions).withColumns(
        {
            "model_run_id": sf.lit(model.run_id),
            "model_version": sf.lit(model.version).cast("int"),
            "scoring_id": sf.lit(scoring_id),
        }
    )


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _vectorized(task: ScoringTask, spark_type: str) -> Callable[..., Column]:
    """Return the user-defined function: over Arrow where Spark has it (4.1), else over pandas."""
    from pyspark.sql import functions as sf

    if hasattr(sf, "arrow_udf"):
        return _arrow_udf(task, spark_type)
    return _pandas_udf(task, spark_type)


def _arrow_udf(task: ScoringTask, spark_type: str) -> Callable[..., Column]:
    from pyspark.sql.pandas.functions import arrow_udf

    def score(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        predictor = _predictor(task)
        for arrays in batches:
            yield predictor.predict(_columns(arrays))

    make: Any = arrow_udf
    udf: Callable[..., Column] = make(score, returnType=spark_type)
    return udf


def _pandas_udf(task: ScoringTask, spark_type: str) -> Callable[..., Column]:
    from pyspark.sql.pandas.functions import pandas_udf

    def score(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        predictor = _predictor(task)
        for series in batches:
            columns = [pa.Array.from_pandas(one) for one in _columns(series)]
            struct = predictor.predict(columns)
            yield pa.Table.from_arrays(struct.flatten(), list(task.columns.values())).to_pandas()

    make: Any = pandas_udf  # its overloads know no function with a variable number of columns
    udf: Callable[..., Column] = make(score, returnType=spark_type)
    return udf


def _columns(batch: Any) -> tuple[Any, ...]:  # noqa: ANN401 - Arrow or pandas
    """Return a batch's columns; Spark hands a single one over bare, whatever is annotated."""
    return batch if isinstance(batch, tuple) else (batch,)


def _predictor(task: ScoringTask) -> Predictor:
    """Load the model in a Python worker, on what Spark gave to the task."""
    from pyspark import TaskContext

    context: Any = TaskContext.get()
    gpus = context.resources().get("gpu") if context else None
    compute = Compute(
        num_threads=context.cpus() if context else 1,
        gpus=tuple(int(address) for address in gpus.addresses) if gpus else (),
    )
    return load_predictor(task, compute)


_OURS = re.compile(r"^spark_dl\.errors\.(\w+): (.*?)(?=^\s*$|^\s+at |\Z)", re.MULTILINE | re.DOTALL)


def task_error(error: BaseException) -> SparkDLError | None:
    """Return the error of ours that a task raised, out of the one that Spark made of it.

    Args:
        error: what an action on the result of `predict` raised.

    Returns:
        The error with its message; `None` when the cause is not ours.
    """
    for name, message in _OURS.findall(str(error)):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, SparkDLError):
            return kind(message.strip())
    return None

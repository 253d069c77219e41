"""The user-defined function that scores: over Arrow where Spark has it (4.1), else over pandas."""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003 - Spark reads the annotations of the task's functions
from typing import TYPE_CHECKING, Any, Final

import pandas as pd  # noqa: TC002 - as above
import pyarrow as pa

from spark_dl.inference.loading import Compute
from spark_dl.inference.predictor import ScoringTask, load_predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column

    from spark_dl.inference.inputs import BoundInput

__all__ = ["crossing", "has_arrow_udf", "scored_column", "task_compute"]

#: Spark's element types of which pandas may lose sight where there are nulls.
_ARROW_TYPES: Final = {
    "boolean": pa.bool_(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
}


def has_arrow_udf() -> bool:
    """Whether this Spark hands Arrow columns to a function as they are."""
    from pyspark.sql import functions as sf

    return hasattr(sf, "arrow_udf")


def scored_column(task: ScoringTask, spark_type: str) -> Column:
    """Return the column of a task's results.

    Args:
        task: the task.
        spark_type: type of the struct that it returns.
    """
    if has_arrow_udf():
        return _arrow_udf(task, spark_type)(*map(crossing, task.inputs))
    return _pandas_udf(task, spark_type)(*map(_crossing_to_pandas, task.inputs))


def crossing(one: BoundInput) -> Column:
    """Return the expression of the column that crosses to Python."""
    from pyspark.sql import functions as sf

    if one.is_vector:
        from pyspark.ml.functions import vector_to_array

        dtype = "float64" if one.element == "double" else "float32"
        return vector_to_array(sf.col(one.sql), dtype)
    return sf.expr(one.sql)


def _crossing_to_pandas(one: BoundInput) -> Column:
    """As `crossing`; pandas makes NaN of a null inside an array: such a row becomes null."""
    from pyspark.sql import functions as sf

    if one.kind != "array" or one.is_vector:
        return crossing(one)
    return sf.expr(f"IF(exists({one.sql}, item -> item IS NULL), NULL, {one.sql})")


def _arrow_udf(task: ScoringTask, spark_type: str) -> Callable[..., Column]:
    from pyspark.sql.pandas.functions import arrow_udf

    def score(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        yield from load_predictor(task, task_compute()).stream(map(_columns, batches))

    make: Any = arrow_udf
    udf: Callable[..., Column] = make(score, returnType=spark_type)
    return udf


def _pandas_udf(task: ScoringTask, spark_type: str) -> Callable[..., Column]:
    from pyspark.sql.pandas.functions import pandas_udf

    def score(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        predictor = load_predictor(task, task_compute())
        types = [_arrow_type(one) for one in task.inputs]
        arrays = (
            [
                pa.Array.from_pandas(values, type=kind)
                for values, kind in zip(_columns(series), types, strict=True)
            ]
            for series in batches
        )
        for struct in predictor.stream(arrays):
            names = [field.name for field in struct.type]
            yield pa.Table.from_arrays(struct.flatten(), names).to_pandas()

    make: Any = pandas_udf  # its overloads know no function with a variable number of columns
    udf: Callable[..., Column] = make(score, returnType=spark_type)
    return udf


def _arrow_type(one: BoundInput) -> pa.DataType | None:
    """Return the Arrow type of a column, which pandas forgets in a batch of nothing but nulls.

    `None` leaves it to pandas.
    """
    if one.kind == "bytes":
        return pa.binary()
    element = _ARROW_TYPES.get(one.element)
    return pa.list_(element) if element is not None and one.kind == "array" else element


def _columns(batch: Any) -> tuple[Any, ...]:  # noqa: ANN401 - Arrow or pandas
    """Return a batch's columns; Spark hands a single one over bare, whatever is annotated."""
    return batch if isinstance(batch, tuple) else (batch,)


def task_compute() -> Compute:
    """Return what Spark gave to the task that runs this."""
    from pyspark import TaskContext

    context: Any = TaskContext.get()
    gpus = context.resources().get("gpu") if context else None
    return Compute(
        num_threads=context.cpus() if context else 1,
        gpus=tuple(int(address) for address in gpus.addresses) if gpus else (),
    )

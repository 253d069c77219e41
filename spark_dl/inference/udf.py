"""The function that scores, on the way into Python that suits this Spark and these columns.

Spark 4.1 hands Arrow columns to a function as they are. Below it there are two ways: over pandas,
which turns every row of an array into an object, and over Arrow, which takes all columns there and
back.
"""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003 - Spark reads the annotations of the task's functions
from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd  # noqa: TC002 - as above
import pyarrow as pa

from spark_dl.inference.loading import Compute
from spark_dl.inference.packing import packed
from spark_dl.inference.predictor import ScoringTask, load_predictor
from spark_dl.inference.recut import read_ahead, recut
from spark_dl.schema.derive import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, DataFrame

    from spark_dl.inference.inputs import BoundInput

__all__ = ["Way", "crossing", "scored_column", "scored_rows", "task_compute", "way_into_python"]

Way = Literal["arrow_udf", "pandas_udf", "map_in_arrow"]

#: Columns that the model does not take may cross for its sake if they are few and narrow, as most
#: texts are: 20 of 15 characters cross in less time than pandas takes, 20 of 200 in a quarter more.
_NARROW: Final = frozenset(
    ("boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "date", "string")
)
_FEW: Final = 24

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


def way_into_python(df: DataFrame, task: ScoringTask) -> Way:
    """Return how the rows of a DataFrame get to a task's model."""
    if has_arrow_udf():
        return "arrow_udf"
    # Arrow does not know the type of Spark ML's vectors: they would have to cross as another column
    taken = {one.sql for one in task.inputs if not one.is_vector}
    others = [kind for name, kind in df.dtypes if quoted(name) not in taken]
    few = len(others) <= _FEW and all(kind in _NARROW for kind in others)
    # numbers alone are no objects over pandas either
    worth = any(one.kind == "array" for one in task.inputs)
    return "map_in_arrow" if few and worth else "pandas_udf"


def scored_rows(df: DataFrame, task: ScoringTask, spark_type: str, name: str) -> DataFrame:
    """Return all columns with those of a task's results, by `mapInArrow`.

    Args:
        df: the rows.
        task: the task.
        spark_type: type of the struct that it returns.
        name: name of its column.
    """
    from pyspark.sql.types import StructField, StructType

    kept = [quoted(column) for column in df.columns]
    made = [one for one in task.inputs if one.sql not in kept]
    ready = df.select(*kept, *(crossing(one).alias(f"{name}_{i}") for i, one in enumerate(made)))
    places = [
        kept.index(one.sql) if one.sql in kept else len(kept) + made.index(one)
        for one in task.inputs
    ]
    names, size = [*df.columns, name], task.batch_size

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predictor = load_predictor(task, task_compute())
        for arrays in read_ahead(recut((batch.columns for batch in batches), size)):
            result = predictor.predict([arrays[place] for place in places])
            yield pa.RecordBatch.from_arrays([*arrays[: len(kept)], result], names)

    result = df.sparkSession.createDataFrame([], f"{name} {spark_type}").schema[name].dataType
    schema = StructType([*df.schema.fields, StructField(name, result)])
    function: Any = score  # pyspark's annotations say Iterable
    return ready.mapInArrow(function, schema)


def scored_column(task: ScoringTask, spark_type: str) -> Column:
    """Return the column of a task's results, by a function of the columns that the model takes.

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

    column = sf.expr(one.sql)
    if one.is_vector:
        from pyspark.ml.functions import vector_to_array

        column = vector_to_array(column, "float64" if one.element == "double" else "float32")
    return packed(column, one.size) if one.kind == "packed" and one.size is not None else column


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

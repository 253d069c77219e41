"""From a DataFrame of Spark ML to the rows of a dataset: vectors become arrays, labels numbers.

Driver side.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from spark_dl._jvm import brief_cause, spark_errors
from spark_dl.errors import DataError, SchemaError
from spark_dl.schema import Feature
from spark_dl.schema.derive import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.sql import Column, DataFrame

__all__ = [
    "MlColumns",
    "array_of",
    "is_vector",
    "measured",
    "noted_by_spark",
    "select_rows",
    "with_label",
]

_NUMERIC: Final = ("tinyint", "smallint", "int", "bigint", "float", "double", "boolean")


@dataclass(frozen=True, kw_only=True)
class MlColumns:
    """The columns of a training.

    Attributes:
        features: one model input each.
        label: column of the label.
        label_type: Spark type that the label is cast to; `None` leaves it as it is.
        weight: column of the sample weights.
        validation: boolean column, true for the rows to validate on.
        id: column that identifies a row.
    """

    features: tuple[str, ...]
    label: str
    label_type: str | None = None
    weight: str | None = None
    validation: str | None = None
    id: str | None = None

    def roles(self) -> list[tuple[str, str]]:
        """Return each column with what it is used as."""
        named = [
            ("label", self.label),
            ("weight", self.weight),
            ("validation indicator", self.validation),
            ("id", self.id),
        ]
        features = [("feature", name) for name in self.features]
        return features + [(role, name) for role, name in named if name is not None]


def is_vector(df: DataFrame, column: str) -> bool:
    """Whether a column holds vectors of Spark ML (or of MLlib)."""
    return df.schema[column].dataType.simpleString() == "vector"


def array_of(df: DataFrame, column: str) -> Column:
    """Return a column as the model takes it: a vector as an array of float32."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    found = sf.col(quoted(column))
    return vector_to_array(found, "float32") if is_vector(df, column) else found


def _check(df: DataFrame, columns: MlColumns) -> None:
    """Check that the columns are there, each in one role, of types that fit."""
    used: dict[str, str] = {}
    for role, column in columns.roles():
        if column not in df.columns:
            raise SchemaError.missing_column(column, df.columns, role=role)
        if column in used:
            msg = f"column {column!r} is used as {used[column]} and {role}: it can be one only"
            raise SchemaError(msg)
        used[column] = role
    types = {field.name: field.dataType.simpleString() for field in df.schema.fields}
    kind = types[columns.label]
    if kind not in _NUMERIC and not kind.startswith("decimal"):
        msg = (
            f"label column {columns.label!r} is {kind}, expected a number: index texts with "
            "StringIndexer first"
        )
        raise SchemaError(msg)
    validation = columns.validation
    if validation is not None and types[validation] != "boolean":
        msg = (
            f"validation indicator column {validation!r} is {types[validation]}, expected "
            "boolean: true for the rows to validate on"
        )
        raise SchemaError(msg)


@contextlib.contextmanager
def select_rows(df: DataFrame, columns: MlColumns) -> Iterator[DataFrame]:
    """Give the rows to train on, under the names that they have in `df`.

    They are read several times, so they are kept in Spark's memory meanwhile, unless `df` is.

    Args:
        df: the user's rows.
        columns: which columns to take, and as what.

    Yields:
        The columns of the training; vectors are arrays of float32.

    Raises:
        SchemaError: a column is missing or does not fit its role.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as sf

    _check(df, columns)
    rows = df.select(
        *(
            (array_of(df, name) if role == "feature" else sf.col(quoted(name))).alias(name)
            for role, name in columns.roles()
        )
    )
    if df.storageLevel != StorageLevel.NONE:
        yield rows
        return
    rows.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        yield rows
    finally:
        rows.unpersist()


def with_label(rows: DataFrame, columns: MlColumns) -> DataFrame:
    """Return the rows with the label as the model takes it."""
    from pyspark.sql import functions as sf

    if columns.label_type is None:
        return rows
    label = sf.col(quoted(columns.label)).cast(columns.label_type)
    return rows.withColumn(columns.label, label)


def measured(df: DataFrame, rows: DataFrame, names: Sequence[str]) -> dict[str, str | Feature]:
    """Return the features with their shapes: arrays that are all equally long have a fixed one.

    Args:
        df: the user's rows; vectors of `VectorAssembler` say their length in the schema.
        rows: what `select_rows` made of them.
        names: the feature columns.

    Raises:
        DataError: the vectors of a column differ in length, or the rows cannot be read.
    """
    known = {name: size for name in names if (size := noted_by_spark(df, name).get("num_attrs"))}
    arrays = [name for name in names if rows.schema[name].dataType.typeName() == "array"]
    lengths = _lengths(rows, [name for name in arrays if name not in known])
    features: dict[str, str | Feature] = {}
    for name in names:
        shortest, longest = lengths.get(name, (known.get(name), known.get(name)))
        if name in arrays and shortest == longest and longest:
            features[name] = Feature(name, shape=(int(longest),))
        elif name in arrays and is_vector(df, name):
            msg = (
                f"feature column {name!r}: its vectors have {shortest} to {longest} elements, "
                "expected one length for all rows (or there are no rows)"
            )
            raise DataError(msg)
        else:
            features[name] = name
    return features


def noted_by_spark(df: DataFrame, column: str) -> Mapping[str, Any]:
    """Return what Spark ML's transformers noted about a column; empty where they did not."""
    found: Mapping[str, Any] = df.schema[column].metadata.get("ml_attr", {})
    return found


def _lengths(rows: DataFrame, names: Sequence[str]) -> dict[str, tuple[int | None, int | None]]:
    from pyspark.sql import functions as sf

    if not names:
        return {}
    measures = [
        measure.alias(f"{kind}_{index}")
        for index, name in enumerate(names)
        for kind, measure in (
            ("min", sf.min(sf.size(sf.col(quoted(name))))),
            ("max", sf.max(sf.size(sf.col(quoted(name))))),
        )
    ]
    try:
        found = rows.agg(*measures).collect()[0]
    except spark_errors() as error:
        msg = f"the rows cannot be read: {brief_cause(error)}"
        raise DataError(msg) from error
    return {name: (found[f"min_{i}"], found[f"max_{i}"]) for i, name in enumerate(names)}

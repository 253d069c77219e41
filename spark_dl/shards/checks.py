"""One pass over the rows before they are written: nulls, lengths, size and content of each split.

Driver side. Whatever is wrong is said by column, before a byte is written.
"""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from spark_dl._jvm import brief_cause, spark_errors
from spark_dl.errors import DataError
from spark_dl.schema.derive import quoted
from spark_dl.schema.types import ExampleKind
from spark_dl.shards.splits import MOST_SPLITS, hash_column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import Column, DataFrame

    from spark_dl.schema import FeatureSpec, SpecEntry
    from spark_dl.shards.plan import DatasetPlan

__all__ = ["Content", "SplitFacts", "content_columns", "inspect_rows"]

#: Bytes of a record beside its values: length, two checksums, and the nesting of one feature.
_RECORD_BYTES = 20
_FEATURE_BYTES = 12
_NUMBER_BYTES = 4
_PART_BITS = 30

_NUMBERS = frozenset({"tinyint", "smallint", "int", "bigint", "float"})
#: Any number that few arrays hold; one that holds it takes longer.
_RARE = -113


@dataclass(frozen=True)
class Content:
    """What a set of rows contains, whatever their order: sums of the rows' hashes.

    Attributes:
        rows: number of rows.
        high: sum of the upper 30 bits of the hashes.
        low: sum of the lower 30 bits; two sums, because one of 64 bits would overflow.
        mixed: all 64 bits, by exclusive or.
    """

    rows: int = 0
    high: int = 0
    low: int = 0
    mixed: int = 0

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Content:
        """Read the values of `content_columns`, which are null for no rows."""
        return cls(*(int(row[name] or 0) for name in ("rows", "high", "low", "mixed")))

    def __add__(self, other: Content) -> Content:
        """Return the content of both sets together."""
        return Content(
            self.rows + other.rows,
            self.high + other.high,
            self.low + other.low,
            self.mixed ^ other.mixed,
        )

    def __str__(self) -> str:
        """Return the content as text for the manifest."""
        return f"xxhash64:{self.rows}-{self.high:x}-{self.low:x}-{self.mixed % 2**64:016x}"


@dataclass(frozen=True)
class SplitFacts:
    """What one split will hold.

    Attributes:
        content: its rows.
        size_bytes: about how many bytes they will take.
    """

    content: Content
    size_bytes: int


def content_columns(names: Sequence[str]) -> list[Column]:
    """Return the aggregates that make a `Content` of the rows.

    Args:
        names: the columns.
    """
    from pyspark.sql import functions as sf

    hashed = hash_column("content", 0, names)
    return [
        sf.count(sf.lit(1)).alias("rows"),
        sf.sum(sf.shiftrightunsigned(hashed, 64 - _PART_BITS)).alias("high"),
        sf.sum(hashed.bitwiseAND(sf.lit(2**_PART_BITS - 1))).alias("low"),
        sf.bit_xor(hashed).alias("mixed"),
    ]


def inspect_rows(rows: DataFrame, plan: DatasetPlan) -> dict[str, SplitFacts]:
    """Check every row and measure every split, in one pass.

    Rows that are not fit are only counted in it, so that it stays short; what is wrong with them
    takes a second one.

    Args:
        rows: the spec's columns.
        plan: what they are to become.

    Returns:
        split to facts; a split without rows is missing.

    Raises:
        DataError: a column holds nulls or arrays of a wrong length; the message names it and
            counts the rows.
    """
    from pyspark.sql import functions as sf

    split = plan.own_name("split")
    measures = [*content_columns(plan.names), _size(plan.spec).alias("size")]
    unfit = sf.count_if(_unfit(plan.spec)).alias("unfit")
    located = rows.withColumn(split, plan.split())
    found = _collect(located.groupBy(split).agg(*measures, unfit).limit(MOST_SPLITS + 1))
    if plan.split_column is not None:
        _refuse_bad_splits(plan.split_column, {row[split]: row["rows"] for row in found})
    if any(row["unfit"] for row in found):
        _refuse_unfit(rows, plan)
    return {row[split]: SplitFacts(Content.from_row(row), int(row["size"])) for row in found}


def _collect(df: DataFrame) -> list[dict[str, Any]]:
    try:
        return [row.asDict() for row in df.collect()]
    except spark_errors() as error:
        msg = f"the table's rows cannot be read: {brief_cause(error)}"
        raise DataError(msg) from error


def _refuse_bad_splits(column: str, rows: Mapping[str | None, int]) -> None:
    what = f"split column {column!r}"
    if None in rows:
        msg = f"{what}: {rows[None]} rows hold null; give each row a split, or filter them out"
        raise DataError(msg)
    if len(rows) > MOST_SPLITS:
        msg = (
            f"{what} holds more than {MOST_SPLITS} names ({', '.join(sorted(map(str, rows))[:3])}, "
            "…): name the column that says train, validation or test"
        )
        raise DataError(msg)


def _unfit(spec: FeatureSpec) -> Column:
    """Return whether something is wrong with a row."""
    unfit = [_null(entry) for entry in spec.entries]
    unfit += [wrong for entry in spec.entries if (wrong := _wrong_length(entry)) is not None]
    while len(unfit) > 1:  # in pairs: Spark's planner would recurse as deep as a table has columns
        pairs = range(0, len(unfit), 2)
        unfit = [functools.reduce(operator.or_, unfit[at : at + 2]) for at in pairs]
    return unfit[0]


def _refuse_unfit(rows: DataFrame, plan: DatasetPlan) -> NoReturn:
    """Say which column is not fit, in how many rows, and where the first one is."""
    from pyspark.sql import functions as sf

    partition = plan.own_name("partition")
    measures: list[Column] = []
    for index, entry in enumerate(plan.spec.entries):
        measures += _measures(index, entry, sf.col(partition))
    located = rows.withColumn(partition, sf.spark_partition_id())
    (found,) = _collect(located.agg(*measures))
    for index, entry in enumerate(plan.spec.entries):
        _refuse_bad(index, entry, found)
    msg = (
        "the rows changed while they were checked: the table was written to meanwhile, or the "
        "query gives other rows each time; read a fixed version, or cache the rows"
    )
    raise DataError(msg)


def _measures(index: int, entry: SpecEntry, partition: Column) -> list[Column]:
    from pyspark.sql import functions as sf

    null, wrong = _null(entry), _wrong_length(entry)
    measures = [
        sf.count_if(null).alias(f"nulls_{index}"),
        sf.min(sf.when(null, partition)).alias(f"null_partition_{index}"),
    ]
    if wrong is not None:
        length = sf.size(sf.col(quoted(entry.name)))
        measures += [
            sf.count_if(wrong).alias(f"wrong_{index}"),
            sf.min(sf.when(wrong, partition)).alias(f"wrong_partition_{index}"),
            sf.min(sf.when(wrong, length)).alias(f"shortest_{index}"),
            sf.max(sf.when(wrong, length)).alias(f"longest_{index}"),
        ]
    return measures


def _null(entry: SpecEntry) -> Column:
    """Return whether a value is null, or holds a null."""
    from pyspark.sql import functions as sf

    column = sf.col(quoted(entry.name))
    if not entry.is_array:
        return column.isNull()
    return column.isNull() | _holds_null(column, entry.info.spark)


def _wrong_length(entry: SpecEntry) -> Column | None:
    """Return whether an array is of another length than it must have; `None` if any will do."""
    from pyspark.sql import functions as sf

    divisor = _length(entry)
    if divisor is None:
        return None
    column = sf.col(quoted(entry.name))
    length = sf.size(column)
    fits = length == divisor if entry.size is not None else length % divisor == 0
    return column.isNotNull() & ~fits


def _holds_null(column: Column, element: str) -> Column:
    """Return whether arrays hold a null.

    `exists` would say so of all, but Spark compiles no lambda, nor what else is computed beside it.
    It compiles `array_contains`, which is null of an array without the value that holds a null.
    """
    from pyspark.sql import functions as sf

    if element not in _NUMBERS:
        return sf.exists(column, lambda item: item.isNull())
    rare = sf.lit(_RARE).cast(element)
    found = sf.array_contains(column, rare)
    others = sf.call_function("array_remove", column, rare)
    return sf.when(found, sf.array_contains(others, rare).isNull()).otherwise(found.isNull())


def _length(entry: SpecEntry) -> int | None:
    """Return what an array's length must be, or be a multiple of; `None` if any will do."""
    if not entry.is_array:
        return None
    if entry.size is not None:
        return entry.size
    inner = math.prod(dim or 1 for dim in entry.shape[1:])
    return inner if inner > 1 else None


def _refuse_bad(index: int, entry: SpecEntry, found: Mapping[str, Any]) -> None:
    what = f"{entry.role.value} column {entry.column!r}"
    nulls = found[f"nulls_{index}"]
    if nulls:
        where = f" (first in partition {found[f'null_partition_{index}']})"
        why = "null"
        if entry.derived.startswith("cast") and entry.derived != "cast double to float":
            why = f"null, or cannot be cast ({entry.derived})"
        msg = f"{what}: {nulls} rows hold {why}{where}; filter them out or fill them before prepare"
        raise DataError(msg)
    wrong = found.get(f"wrong_{index}")
    if wrong:
        where = f" (first in partition {found[f'wrong_partition_{index}']})"
        shortest, longest = found[f"shortest_{index}"], found[f"longest_{index}"]
        got = str(shortest) if shortest == longest else f"{shortest} to {longest}"
        expected = "" if entry.size is not None else "a multiple of "
        msg = (
            f"{what}: {wrong} rows hold arrays of {got} elements{where}, "
            f"expected {expected}{_length(entry)} for shape {entry.shape}; "
            "change the shape or the rows"
        )
        raise DataError(msg)


def _size(spec: FeatureSpec) -> Column:
    """Return an aggregate: about how many bytes the rows take as records."""
    from pyspark.sql import functions as sf

    fixed = _RECORD_BYTES
    varying = sf.lit(0).cast("bigint")
    for entry in spec.entries:
        fixed += _FEATURE_BYTES + len(entry.name.encode())
        column = sf.col(quoted(entry.name))
        if entry.info.example is ExampleKind.BYTES:
            varying = varying + sf.coalesce(_text_bytes(column, entry), sf.lit(0))
        elif entry.size is None:
            varying = varying + sf.size(column) * _NUMBER_BYTES
        else:
            fixed += entry.size * _NUMBER_BYTES
    return sf.coalesce(sf.sum(varying + sf.lit(fixed)), sf.lit(0))


def _text_bytes(column: Column, entry: SpecEntry) -> Column:
    from pyspark.sql import functions as sf

    if not entry.is_array:
        return sf.octet_length(column)
    return sf.aggregate(column, sf.lit(0), lambda total, item: total + sf.octet_length(item))

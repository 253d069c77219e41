"""Whether a table gives what a model takes. Pure: types are Spark's `simpleString`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spark_dl.errors import ModelError, did_you_mean
from spark_dl.schema import DTYPES
from spark_dl.schema.derive import LOSSLESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spark_dl.schema import DType, SpecEntry

__all__ = ["check_columns", "check_new_columns", "column_type", "locate"]

#: As `prepare` does it: all double columns become float, without being asked.
_NARROWED = ("float", "double")


def column_type(entry: SpecEntry) -> str:
    """Return the Spark type in which a feature crosses to Python: the one that `prepare` wrote."""
    element = DTYPES[entry.dtype].spark
    return f"array<{element}>" if entry.is_array else element


def check_columns(features: Sequence[SpecEntry], table: Mapping[str, str], *, model: str) -> None:
    """Check that a table has every input of a model, of a type that fits.

    Args:
        features: the model's inputs.
        table: the table's columns and their types.
        model: the model's path, for the error.

    Raises:
        ModelError: lists every input that does not fit.
    """
    wrong = [problem for entry in features if (problem := _problem(entry, table))]
    if wrong:
        lines = "\n".join(f"  - {problem}" for problem in wrong)
        msg = (
            f"the table does not fit the model at {model}:\n{lines}\n"
            f"(columns of the table: {', '.join(f'{name} {kind}' for name, kind in table.items())})"
        )
        raise ModelError(msg)


def locate(entry: SpecEntry, table: Iterable[str]) -> str:
    """Return the column that holds a feature.

    That is the one that the model was trained on; in a dataset's own table, where columns are
    called as the model's inputs, the one of the input's name.
    """
    columns = set(table)
    return entry.name if entry.column not in columns and entry.name in columns else entry.column


def _problem(entry: SpecEntry, table: Mapping[str, str]) -> str | None:
    column = locate(entry, table)
    if column not in table:
        return f"column {column!r} is missing{did_you_mean(column, table)}"
    got, wanted = table[column], column_type(entry)
    if got in (wanted, entry.source_type) or _widens(_element(got, entry), entry.dtype):
        return None
    trained = f" (trained on {entry.source_type})" if entry.source_type not in ("", wanted) else ""
    return f"column {column!r} is {got}, expected {wanted}{trained}: cast it in the query"


def _widens(element: str, dtype: DType) -> bool:
    if (DTYPES[dtype].spark, element) == _NARROWED:
        return True
    return any(
        DTYPES[narrow].spark == element and dtype in wider for narrow, wider in LOSSLESS.items()
    )


def _element(kind: str, entry: SpecEntry) -> str:
    if not entry.is_array:
        return kind
    return kind.removeprefix("array<").removesuffix(">") if kind.startswith("array<") else ""


def check_new_columns(new: Iterable[str], table: Iterable[str]) -> None:
    """Check that no prediction column takes the name of a column that the table has.

    Names are compared as Spark does it by default, regardless of case.

    Raises:
        ModelError: lists the names that are taken.
    """
    have = {name.lower() for name in table}
    taken = [name for name in new if name.lower() in have]
    if taken:
        msg = (
            f"the table has the columns {', '.join(taken)} already, which the predictions would "
            "add: rename or drop "
            f"them first, or name the predictions with `prefix`"
        )
        raise ModelError(msg)

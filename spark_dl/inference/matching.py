"""Whether the columns that predictions add fit beside those of a table. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spark_dl.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["check_new_columns", "refuse_twice"]


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
            "add: rename or drop them first, or name the predictions with `prefix`"
        )
        raise ModelError(msg)


def refuse_twice(names: Sequence[str]) -> None:
    """Refuse a table in which two columns have one name, regardless of case.

    Raises:
        ModelError: lists the names.
    """
    lower = [name.lower() for name in names]
    twice = sorted({name for name in names if lower.count(name.lower()) > 1})
    if twice:
        msg = f"the table has columns of one name: {', '.join(twice)}; rename or drop one of each"
        raise ModelError(msg)

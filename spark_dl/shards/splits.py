"""Which split a row belongs to: a seeded hash of what identifies it, and nothing else.

The arithmetic from a hash to a split is the same here in Python and in Spark's expression. pyspark
is imported when a function needs it.
"""

from __future__ import annotations

import math
import re
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from spark_dl.errors import ConfigError, SchemaError
from spark_dl.schema.derive import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import Column, DataFrame

__all__ = ["MOST_SPLITS", "check_splits", "given_split", "hash_column", "split_column", "split_of"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOLERANCE: Final = 1e-6
#: A double holds 53 bits: the upper 53 bits of a hash make a fraction without rounding.
_DROPPED_BITS: Final = 11
_UNIT: Final = 2.0**-53
#: More names than this in a split column mean that the wrong column was named.
MOST_SPLITS: Final = 100


def check_splits(splits: Mapping[str, float]) -> dict[str, float]:
    """Return the splits, checked.

    Args:
        splits: name to fraction in (0, 1]; together 1. The order counts: it is the order of the
            hash's intervals.

    Raises:
        ConfigError: a fraction is not positive, they do not sum to 1, or a name is no folder name.
    """
    if not splits:
        msg = "splits: none given; use for example {'train': 0.9, 'validation': 0.1}"
        raise ConfigError(msg)
    for name, fraction in splits.items():
        if not _NAME.fullmatch(name):
            msg = (
                f"splits: the name {name!r} becomes a folder: "
                "use letters, digits, '_' and '-', at most 64"
            )
            raise ConfigError(msg)
        if not (math.isfinite(fraction) and fraction > 0):
            msg = (
                f"splits: {name} has the fraction {fraction}, expected more than 0; "
                "leave out a split that you do not want"
            )
            raise ConfigError(msg)
    folded = {name.casefold() for name in splits}
    if len(folded) < len(splits):
        msg = f"splits: two of {', '.join(splits)} differ in case only: give each a name of its own"
        raise ConfigError(msg)
    total = math.fsum(splits.values())
    if abs(total - 1) > _TOLERANCE:
        msg = f"splits: the fractions {dict(splits)} sum to {total:g}, expected 1"
        raise ConfigError(msg)
    return {name: float(fraction) for name, fraction in splits.items()}


def split_of(hash_value: int, splits: Mapping[str, float]) -> str:
    """Return the split of a row from its hash; the reference for `split_column`.

    Args:
        hash_value: signed 64-bit hash of the row.
        splits: name to fraction, as `check_splits` gave them.

    Example:
        >>> split_of(-1, {"train": 0.8, "test": 0.2})
        'test'
    """
    position = ((hash_value % 2**64) >> _DROPPED_BITS) * _UNIT
    *first, last = splits
    for name, bound in zip(first, accumulate(splits.values()), strict=False):
        if position < bound:
            return name
    return last


def hash_column(salt: str, seed: int, columns: Sequence[str]) -> Column:
    """Return the seeded 64-bit hash of the columns.

    Args:
        salt: tells hashes of different use apart; empty for the hash of the splits.
        seed: the seed.
        columns: column names; they must not be null, because null leaves the hash as it was.
    """
    from pyspark.sql import functions as sf

    salted = [sf.lit(salt)] if salt else []
    hashed = [sf.col(quoted(name)) for name in columns]
    return sf.xxhash64(*salted, sf.lit(seed).cast("bigint"), *hashed)


def split_column(hashed: Column, splits: Mapping[str, float]) -> Column:
    """Return the split of each row as text, from the hash; equal to `split_of`."""
    from pyspark.sql import functions as sf

    position = sf.shiftrightunsigned(hashed, _DROPPED_BITS).cast("double") * sf.lit(_UNIT)
    *first, last = splits
    chosen = sf.lit(last)
    # built from the last condition outwards, so that the first bound above the position decides
    for name, bound in reversed(list(zip(first, accumulate(splits.values()), strict=False))):
        chosen = sf.when(position < sf.lit(bound), sf.lit(name)).otherwise(chosen)
    return chosen


def given_split(df: DataFrame, column: str) -> Column:
    """Return the split of each row as text, from a column of the table that says it.

    Args:
        df: the table.
        column: a text, the split's name; or a boolean, where true is ``validation`` and false is
            ``train``.

    Raises:
        SchemaError: there is no such column, or it is of another type.
    """
    from pyspark.sql import functions as sf

    if column not in df.columns:
        raise SchemaError.missing_column(column, df.columns, role="split")
    kind = df.schema[column].dataType.simpleString()
    found = sf.col(quoted(column))
    if kind == "boolean":
        # null stays null, so that the check of the rows can count it
        return sf.when(found, sf.lit("validation")).when(~found, sf.lit("train"))
    if kind == "string":
        return found
    msg = (
        f"split column {column!r} is {kind}: expected a string, the split's name, or a boolean, "
        "true for the rows to validate on"
    )
    raise SchemaError(msg)

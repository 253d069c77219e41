"""Batches of one size out of batches of any size, and reading ahead of who uses them.

Pure: neither pyspark nor tensorflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Columns = Sequence[pa.Array]

__all__ = ["recut"]


def recut(batches: Iterable[Columns], size: int) -> Iterator[list[pa.Array]]:
    """Cut columns anew, across the borders of the batches in which they come.

    Only what lies across a border is copied.

    Args:
        batches: columns of equal length each.
        size: rows of a batch, at least 1.

    Yields:
        columns of `size` rows; the last may have fewer. Nothing for no rows.

    Example:
        >>> [len(part[0]) for part in recut([[pa.array([1, 2, 3])], [pa.array([4, 5])]], 2)]
        [2, 2, 1]
    """
    waiting: list[Columns] = []
    rows = 0
    for batch in batches:
        start, length = 0, len(batch[0])
        while rows + length - start >= size:
            end = start + size - rows
            yield _joined([*waiting, [column.slice(start, end - start) for column in batch]])
            waiting, rows, start = [], 0, end
        if start < length:
            waiting.append([column.slice(start) for column in batch])
            rows += length - start
    if rows:
        yield _joined(waiting)


def _joined(parts: Sequence[Columns]) -> list[pa.Array]:
    if len(parts) == 1:
        return list(parts[0])
    return [pa.concat_arrays(list(pieces)) for pieces in zip(*parts, strict=True)]

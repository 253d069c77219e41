"""Batches of one size out of batches of any size, and reading ahead of who uses them.

Pure: neither pyspark nor tensorflow.
"""

from __future__ import annotations

import itertools
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Columns = Sequence[pa.Array]

__all__ = ["read_ahead", "recut"]

T = TypeVar("T")


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


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield items while a thread fetches the next one.

    At most one item more than the caller has is there at a time.

    Args:
        items: where they come from; nobody else may take any.

    Raises:
        Exception: what `items` raises, in its place.

    Example:
        >>> list(read_ahead(range(3)))
        [0, 1, 2]
    """
    wanted: queue.SimpleQueue[Future[list[T]] | None] = queue.SimpleQueue()
    # A daemon, and not waited for: where the caller fails, it may be in a read that has no end.
    threading.Thread(
        target=_fetch, args=(iter(items), wanted), name="spark-dl-read-ahead", daemon=True
    ).start()
    try:
        coming = _asked_of(wanted)
        while found := coming.result():
            coming = _asked_of(wanted)
            yield found[0]
    finally:
        wanted.put(None)


def _asked_of(wanted: queue.SimpleQueue[Future[list[T]] | None]) -> Future[list[T]]:
    answer: Future[list[T]] = Future()
    wanted.put(answer)
    return answer


def _fetch(source: Iterator[T], wanted: queue.SimpleQueue[Future[list[T]] | None]) -> None:
    """Answer each wish with the next item in a list, an empty one at the end."""
    while (answer := wanted.get()) is not None:
        try:
            answer.set_result(list(itertools.islice(source, 1)))
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            answer.set_exception(error)

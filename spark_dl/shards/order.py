"""The order in which an epoch meets the rows of a split. Pure arithmetic on numpy arrays.

An order is a pure function of (seed, epoch, position): whoever asks for the rows at some positions
gets the same, from wherever a run is resumed and on however many ranks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["WINDOW_PACKS", "Order", "order_of", "pack_rows"]

#: Packs whose rows are mixed with each other.
WINDOW_PACKS: Final = 32
_UINT64: Final = 2**64 - 1


class Order(Protocol):
    """The rows of an epoch by position.

    Attributes:
        ends: int64 [windows], positions at which windows end; rows of one window lie in few
            records.
    """

    ends: NDArray[np.int64]

    def take(self, begin: int, end: int) -> NDArray[np.int64]:
        """Return the rows at the positions from `begin` to before `end`, int64 [n]."""

    def window(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return a window as it is read.

        Returns:
            numbers of its records, int64 [k], and of its rows, in order, counted over these
            records, int64 [n].
        """


def pack_rows(shard_rows: Sequence[int], rows_per_record: int) -> NDArray[np.int64]:
    """Return the number of rows of each record of a split, int64 [records].

    Args:
        shard_rows: rows of each shard; all of its records are full but the last.
        rows_per_record: rows of a full record.

    Example:
        >>> pack_rows([5, 0, 4], 2).tolist()
        [2, 2, 1, 2, 2]
    """
    parts = [np.zeros(0, np.int64)]
    for rows in shard_rows:
        full, rest = divmod(rows, rows_per_record)
        parts.append(np.full(full, rows_per_record, np.int64))
        if rest:
            parts.append(np.array([rest], np.int64))
    return np.concatenate(parts)


# an epoch's order is asked for step by step; only the newest is kept, because it may be large
@lru_cache(maxsize=1)
def order_of(
    rows: int, seed: int, epoch: int, packs: tuple[tuple[int, ...], int] | None, *, shuffle: bool
) -> Order:
    """Return the order of an epoch.

    Args:
        rows: rows of the split.
        seed: seed of the order.
        epoch: number of the epoch.
        packs: rows of each shard and rows of a record, where records hold several rows.
        shuffle: whether rows are mixed at all.
    """
    if packs is None:
        return _RowOrder(rows, seed, epoch, shuffle=shuffle)
    return _PackOrder(pack_rows(*packs), seed, epoch, shuffle=shuffle)


def _random(seed: int, epoch: int, window: int = 0) -> np.random.Generator:
    """Return the generator of an epoch or, from 1 on, of one of its windows."""
    key = np.array([seed & _UINT64, epoch & _UINT64], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, window]))


class _RowOrder:
    """Any row may come anywhere: 8 bytes a row."""

    def __init__(self, rows: int, seed: int, epoch: int, *, shuffle: bool) -> None:
        order = np.arange(rows, dtype=np.int64)
        if shuffle:
            order = _random(seed, epoch).permutation(rows).astype(np.int64)
        order.setflags(write=False)
        self._order = order
        self.ends = np.array([rows], np.int64)

    def take(self, begin: int, end: int) -> NDArray[np.int64]:
        return self._order[begin:end]

    def window(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        del number  # there is one only
        return self._order, np.arange(len(self._order))


class _PackOrder:
    """Packs come in any order; the rows of `WINDOW_PACKS` of them are mixed. 24 bytes a pack."""

    def __init__(self, rows: NDArray[np.int64], seed: int, epoch: int, *, shuffle: bool) -> None:
        packs = np.arange(len(rows))
        if shuffle:
            packs = _random(seed, epoch).permutation(len(rows))
        starts = np.cumsum(rows) - rows
        self._packs, self._starts, self._rows = packs, starts[packs], rows[packs]
        ends = np.cumsum(self._rows)
        self.ends = ends[
            np.minimum(np.arange(WINDOW_PACKS, len(packs) + WINDOW_PACKS, WINDOW_PACKS), len(packs))
            - 1
        ]
        self._seed, self._epoch, self._shuffle = seed, epoch, shuffle
        self.window = lru_cache(maxsize=2)(self._make_window)

    def take(self, begin: int, end: int) -> NDArray[np.int64]:
        if begin >= end:
            return np.zeros(0, np.int64)
        first, last = np.searchsorted(self.ends, [begin, end - 1], side="right").tolist()
        rows = np.concatenate([self._rows_of(window) for window in range(first, last + 1)])
        offset = int(self.ends[first - 1]) if first else 0
        return rows[begin - offset : end - offset]

    def _rows_of(self, number: int) -> NDArray[np.int64]:
        """Return the numbers of a window's rows in the split, in order."""
        mine = _packs_of(number)
        counts = self._rows[mine]
        shifts = self._starts[mine] - (np.cumsum(counts) - counts)
        within = self.window(number)[1]
        rows: NDArray[np.int64] = within + np.repeat(shifts, counts)[within]
        return rows

    def _make_window(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        mine = _packs_of(number)
        rows = np.arange(int(self._rows[mine].sum()))
        if self._shuffle:
            _random(self._seed, self._epoch, number + 1).shuffle(rows)
        return self._packs[mine], rows


def _packs_of(window: int) -> slice:
    return slice(window * WINDOW_PACKS, (window + 1) * WINDOW_PACKS)

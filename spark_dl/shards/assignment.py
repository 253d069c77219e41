"""Which rows each rank sees at each step. Pure arithmetic on numpy arrays.

The rows of a step depend on (seed, epoch, step, global batch size) only, never on the number of
ranks: rank ``r`` takes the ``r``-th contiguous slice of the global batch. So any number of workers
    sees the same global batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from spark_dl.errors import ConfigError, DataError
from spark_dl.shards.order import Order, order_of, pack_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["EMPTY", "Assignment", "Batch", "Piece", "evaluation_rows", "locate", "piece_of"]


class Batch(NamedTuple):
    """One rank's part of a global batch.

    Attributes:
        rows: int64 [local_batch_size], numbers of rows in the split.
        weights: float32 [local_batch_size], factors of the rows' weights; `None` with remainder
            ``drop``.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float32] | None


class Piece(NamedTuple):
    """Rows of one rank that are read together, from packed records.

    Attributes:
        records: int64 [k], numbers of records in the split.
        rows: int64 [n], numbers of rows, counted over these records.
        weights: float32 [n], or `None`, as of a `Batch`.
    """

    records: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.float32] | None


#: A piece without rows.
EMPTY: Final = Piece(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The rows of a split, dealt to one rank of a training cluster.

    Attributes:
        rows: number of rows of the split.
        world_size: number of ranks.
        rank: this rank, 0 ≤ rank < world_size.
        global_batch_size: rows of one step over all ranks; a multiple of `world_size`.
        seed: seed of the order.
        shuffle: whether each epoch has an order of its own; otherwise rows keep the dataset's
            order.
        remainder: what becomes of the rows that do not fill a last global batch. ``drop``: they
            are left out (others in each epoch when shuffled). ``pad``: the last batch is filled up
            with copies of its first row of weight 0, and its real rows weigh ``global_batch_size /
            real``.
        shard_rows: rows of each shard, where records hold several rows.
        rows_per_record: rows of a record. With more than one, an epoch mixes the records and then
            the rows of a window of them, and its order is not held in memory.

    Raises:
        ConfigError: the world size does not divide the global batch size, or a number is out of
            range.
        DataError: there are no rows, or fewer than one global batch with ``drop``.

    Example:
        >>> settings = {"rows": 10, "global_batch_size": 4, "seed": 1, "shuffle": False}
        >>> a = Assignment(world_size=2, rank=1, **settings)
        >>> a.steps_per_epoch, a.batch(0, 1).rows.tolist()
        (2, [6, 7])
    """

    rows: int
    world_size: int
    rank: int
    global_batch_size: int
    seed: int
    shuffle: bool = True
    remainder: Literal["drop", "pad"] = "drop"
    shard_rows: tuple[int, ...] = ()
    rows_per_record: int = 1

    def __post_init__(self) -> None:
        """Check what only the caller can know wrong."""
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            msg = (
                f"rank {self.rank} of world_size {self.world_size}: expected 0 <= rank < world_size"
            )
            raise ConfigError(msg)
        if self.remainder not in ("drop", "pad"):
            msg = f"remainder={self.remainder!r}, expected 'drop' or 'pad'"
            raise ConfigError(msg)
        if self.rows_per_record > 1 and sum(self.shard_rows) != self.rows:
            msg = f"shards of {sum(self.shard_rows)} rows in all, expected {self.rows}"
            raise ConfigError(msg)
        self._check_batch_size()
        if self.rows < 1:
            msg = "the split has no rows to train on: give it a larger fraction or more rows"
            raise DataError(msg)
        if self.remainder == "drop" and self.rows < self.global_batch_size:
            msg = (
                f"the split has {self.rows} rows, fewer than one global batch of "
                f"{self.global_batch_size}: make global_batch_size smaller, "
                "or fill up with remainder='pad'"
            )
            raise DataError(msg)

    def _check_batch_size(self) -> None:
        size, ranks = self.global_batch_size, self.world_size
        if size < 1:
            msg = f"global_batch_size={size}, expected at least {ranks} (one row a worker)"
            raise ConfigError(msg)
        if size % ranks:
            below = size // ranks * ranks
            nearest = f"{below} or {below + ranks}" if below else f"{ranks}"
            msg = (
                f"global_batch_size={size} cannot be divided by {ranks} workers: "
                f"the nearest sizes that can are {nearest}"
            )
            raise ConfigError(msg)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, equal on all ranks."""
        full, rest = divmod(self.rows, self.global_batch_size)
        return full + (self.remainder == "pad" and rest > 0)

    @property
    def local_batch_size(self) -> int:
        """Rows of one step on one rank."""
        return self.global_batch_size // self.world_size

    @property
    def dropped(self) -> int:
        """Rows that an epoch leaves out."""
        return self.rows % self.global_batch_size if self.remainder == "drop" else 0

    def batch(self, epoch: int, step: int) -> Batch:
        """Return this rank's rows of one step.

        Args:
            epoch: number of the epoch, from 0.
            step: number of the step in it, 0 ≤ step < steps_per_epoch.

        Raises:
            ConfigError: there is no such step.
        """
        self._check_step(step, self.steps_per_epoch - 1)
        return self._slice(self._order(epoch), step)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield this rank's batches of one epoch, in order.

        Args:
            epoch: number of the epoch, from 0.
            start_step: the first step to yield; ``steps_per_epoch`` yields none.
        """
        self._check_step(start_step, self.steps_per_epoch)
        order = self._order(epoch)
        for step in range(start_step, self.steps_per_epoch):
            yield self._slice(order, step)

    @property
    def pieces_per_epoch(self) -> int:
        """Pieces of one epoch, equal on all ranks; of some a rank has no rows."""
        return len(self._order(0).ends) + (self.remainder == "pad")

    def piece(self, epoch: int, number: int, start_step: int = 0) -> Piece:
        """Return this rank's rows of one window of the order, or of the batch that is filled up.

        All pieces of an epoch, one after the other, are its batches; they are cut where the order's
        windows end, so that the rows of a piece lie in few records. Only where records hold several
        rows.

        Args:
            epoch: number of the epoch, from 0.
            number: number of the piece, 0 ≤ number < pieces_per_epoch.
            start_step: what comes before this step is left out.
        """
        self._check_step(start_step, self.steps_per_epoch)
        order = self._order(epoch)
        if number == len(order.ends):
            return self._last_piece(order, start_step)
        size, local = self.global_batch_size, self.local_batch_size
        window_begin = int(order.ends[number - 1]) if number else 0
        begin = max(window_begin, start_step * size)
        end = min(int(order.ends[number]), self.rows // size * size)
        if begin >= end:
            return EMPTY
        records, rows = order.window(number)
        rows = rows[begin - window_begin : end - window_begin]
        if self.world_size > 1:
            rows = rows[np.arange(begin, end) % size // local == self.rank]
        weights = None if self.remainder == "drop" else np.ones(len(rows), np.float32)
        piece = Piece(records, rows, weights)
        # rows that are mixed lie in all records of their window, others in a few
        is_whole = self.shuffle and len(rows)
        return piece if is_whole else _without_unused(piece, self.record_rows[records])

    def _last_piece(self, order: Order, start_step: int) -> Piece:
        """Return the last batch where it is filled up."""
        full, last = self.rows // self.global_batch_size, self.steps_per_epoch - 1
        if last < max(full, start_step):
            return EMPTY
        return piece_of(self._slice(order, last), self.record_rows)

    @cached_property
    def record_rows(self) -> NDArray[np.int64]:
        """Rows of each record of the split, int64 [records]."""
        return pack_rows(self.shard_rows, self.rows_per_record)

    def _order(self, epoch: int) -> Order:
        packs = (self.shard_rows, self.rows_per_record) if self.rows_per_record > 1 else None
        return order_of(self.rows, self.seed, epoch, packs, shuffle=self.shuffle)

    def _check_step(self, step: int, last: int) -> None:
        if not 0 <= step <= last:
            msg = f"step {step}: expected 0 <= step <= {last}"
            raise ConfigError(msg)

    def _slice(self, order: Order, step: int) -> Batch:
        begin = step * self.global_batch_size
        local = self.local_batch_size
        first = begin + self.rank * local
        mine = order.take(min(first, self.rows), min(first + local, self.rows))
        if self.remainder == "drop":
            return Batch(mine, None)
        real = min(self.global_batch_size, self.rows - begin)
        weights = np.zeros(local, np.float32)
        weights[: mine.size] = self.global_batch_size / real
        if mine.size < local:
            mine = np.concatenate(
                [mine, np.full(local - mine.size, order.take(begin, begin + 1)[0], np.int64)]
            )
        return Batch(mine, weights)


def piece_of(batch: Batch, record_rows: NDArray[np.int64]) -> Piece:
    """Return the records that hold the rows of a batch, each once, and where the rows lie in them.

    Args:
        batch: any rows of the split.
        record_rows: int64 [records], rows of each record of the split.
    """
    every = Piece(np.arange(len(record_rows)), batch.rows, batch.weights)
    return _without_unused(every, record_rows)


def _without_unused(piece: Piece, record_rows: NDArray[np.int64]) -> Piece:
    """Return the piece without the records in which none of its rows lies."""
    at, within = locate(piece.rows, record_rows)
    used, which = np.unique(at, return_inverse=True)
    counts = record_rows[used]
    rows = (np.cumsum(counts) - counts)[which] + within
    return Piece(piece.records[used], rows, piece.weights)


def evaluation_rows(rows: int, world_size: int, rank: int) -> range:
    """Return the rows that a rank evaluates: a contiguous part; each row has exactly one rank.

    Args:
        rows: number of rows of the split.
        world_size: number of ranks.
        rank: the rank. Parts differ by at most one row; a rank may have none.

    Example:
        >>> [evaluation_rows(5, 2, rank) for rank in range(2)]
        [range(0, 2), range(2, 5)]
    """
    return range(rows * rank // world_size, rows * (rank + 1) // world_size)


def locate(
    rows: NDArray[np.int64], shard_rows: Sequence[int] | NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where rows of a split lie.

    Args:
        rows: int64 [n], numbers of rows in the split.
        shard_rows: number of rows of each of the split's shards, in the manifest's order; or of
            its records, to find rows in records.

    Returns:
        index of the shard, int64 [n], and number of the row in it, int64 [n].

    Raises:
        DataError: a number is not a row of the split.

    Example:
        >>> [part.tolist() for part in locate(np.array([0, 3, 4]), [3, 0, 2])]
        [[0, 2, 2], [0, 0, 1]]
    """
    ends = np.cumsum(np.asarray(shard_rows, np.int64))
    total = int(ends[-1]) if ends.size else 0
    if rows.size and not 0 <= rows.min() <= rows.max() < total:
        msg = (
            f"rows {rows.min()} to {rows.max()} asked for, but the split has rows 0 to {total - 1}"
        )
        raise DataError(msg)
    shards = np.searchsorted(ends, rows, side="right").astype(np.int64)
    starts = ends - np.asarray(shard_rows, np.int64)
    return shards, rows - starts[shards]

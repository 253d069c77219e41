"""The rows of a run: which of them a rank meets, and where they are read."""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, cast

from spark_dl.shards.assignment import Assignment
from spark_dl.storage import is_local, normalise
from spark_dl.storage.cache import host_cache
from spark_dl.training.data import ShardReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spark_dl.shards import Manifest
    from spark_dl.training.collective import Collective
    from spark_dl.training.task import TrainTask

__all__ = ["assign_rows", "open_split", "told_by_readers"]

logger = logging.getLogger(__name__)

_opened: ContextVar[list[ShardReader]] = ContextVar("opened")


@contextlib.contextmanager
def told_by_readers() -> Iterator[None]:
    """Raise what the reader of a split met inside as itself; TensorFlow makes an OpError of it."""
    readers: list[ShardReader] = []
    token = _opened.set(readers)
    try:
        yield
    except Exception as error:
        for reader in readers:
            if reader.failure not in (None, error):
                raise reader.failure from error
        raise
    finally:
        _opened.reset(token)


def open_split(task: TrainTask, manifest: Manifest, split: str) -> ShardReader:
    """Open the shards of a split.

    Args:
        task: what to train.
        manifest: the dataset's.
        split: its name.

    Raises:
        ManifestError: there is no such split, or it is empty.
        ShardError: a shard is damaged or missing.
        StorageError: this host has no place for copies. That a shard cannot be copied is raised
            where its rows are read.
    """
    shards = manifest.split(split)
    cache = None if is_local(normalise(task.dataset)) else host_cache(task.storage)
    reader = ShardReader(task.dataset, shards, manifest.rows_per_record, cache)
    _opened.get([]).append(reader)
    return reader


def assign_rows(task: TrainTask, manifest: Manifest, collective: Collective) -> Assignment:
    """Return which rows of the training split this rank meets, and when.

    Args:
        task: what to train.
        manifest: the dataset's.
        collective: of this rank.

    Raises:
        ManifestError: there is no training split, or it is empty.
        ConfigError: the batch size does not fit the ranks.
    """
    shards = manifest.split(task.train_split)  # says so when it is missing or empty
    assignment = Assignment(
        rows=manifest.totals[task.train_split],
        world_size=collective.world_size,
        rank=collective.rank,
        global_batch_size=task.global_batch_size,
        seed=task.seed,
        shuffle=task.shuffle,
        remainder=cast("Literal['drop', 'pad']", task.remainder),
        shard_rows=tuple(shard.rows for shard in shards),
        rows_per_record=manifest.rows_per_record,
    )
    if assignment.dropped and collective.rank == 0:
        logger.info(
            "each epoch leaves out %d of %d rows: they do not fill a batch",
            assignment.dropped,
            assignment.rows,
        )
    return assignment

"""From shards to batches: the rows that the assignment names, in its order.

A shard is checked against its manifest once (length and SHA-256), then read through a memory map:
rows are met in any order without being copied into the process before they are needed. Whole
batches are decoded at once.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from spark_dl.errors import ShardError
from spark_dl.schema import tensors
from spark_dl.storage import join, local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spark_dl.schema import FeatureSpec
    from spark_dl.shards import Shard
    from spark_dl.shards.assignment import Assignment

__all__ = ["ShardReader", "evaluation_dataset", "training_dataset"]

# TFRecord: u64 length, u32 CRC of the length, data, u32 CRC of the data
# (https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details")
_HEADER_BYTES: Final = 12
_FOOTER_BYTES: Final = 4
#: Decoded batches that wait for the training loop.
_READ_AHEAD: Final = 2


class ShardReader:
    """Random access to the records of one split.

    Args:
        folder: the dataset's folder, on a mounted file system.
        shards: the split's shards, in the order of the manifest.

    Raises:
        ShardError: a shard is missing, or differs from what the manifest says.
    """

    def __init__(self, folder: str, shards: Sequence[Shard]) -> None:
        """Map the shards and index their records."""
        self._maps = [_open(local_path(join(folder, shard.path)), shard) for shard in shards]
        indices = [_index(data, shard) for data, shard in zip(self._maps, shards, strict=True)]
        self._shard_of = np.repeat(np.arange(len(shards)), [len(index) for index in indices])
        self._spans = np.concatenate(indices) if indices else np.zeros((0, 2), np.int64)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._spans)

    def read(self, rows: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the records of the given rows, in their order."""
        shards = self._shard_of[rows].tolist()
        return [
            self._maps[s][start:end]
            for s, (start, end) in zip(shards, self._spans[rows].tolist(), strict=True)
        ]


def _open(path: str, shard: Shard) -> mmap.mmap | bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        msg = (
            f"shard {path} cannot be read: {error}; executors must see the dataset's folder under "
            "the same path"
        )
        raise ShardError(msg) from error
    if size != shard.bytes:
        msg = (
            f"shard {path} has {size} bytes, its manifest says {shard.bytes}: prepare the dataset "
            "again"
        )
        raise ShardError(msg)
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != shard.checksum:
        msg = (
            f"shard {path} is damaged: its checksum is {found}, its manifest says {shard.checksum}"
        )
        raise ShardError(msg)
    return data


def _index(data: mmap.mmap | bytes, shard: Shard) -> npt.NDArray[np.int64]:
    """Return start and end of each record's data, int64 [rows, 2]."""
    spans = []
    position = 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        start = position + _HEADER_BYTES
        spans.append((start, start + length))
        position = start + length + _FOOTER_BYTES
    if position != len(data) or len(spans) != shard.rows:
        msg = (
            f"shard {shard.path} holds {len(spans)} records, its manifest says {shard.rows}: "
            "prepare the dataset again"
        )
        raise ShardError(msg)
    return np.array(spans, np.int64).reshape(-1, 2)


Records = list[bytes]
Weights = npt.NDArray[np.float32]


def _decoder(spec: FeatureSpec, *, bare: bool) -> Callable[..., tuple[Any, ...]]:
    """Return the function from records to what Keras takes: (x, y[, sample_weight])."""
    parsers = tensors.example_features(spec)

    def decode(records: tf.Tensor, factors: tf.Tensor | None = None) -> tuple[Any, ...]:
        features, label, weight = tensors.decode(tf.io.parse_example(records, parsers), spec)
        x = next(iter(features.values())) if bare else features
        if weight is not None and factors is not None:
            weight = tf.cast(weight, factors.dtype) * factors
        elif weight is None:
            weight = factors
        return (x, label) if weight is None else (x, label, weight)

    return decode


def training_dataset(
    reader: ShardReader,
    assignment: Assignment,
    spec: FeatureSpec,
    *,
    epochs: range,
    bare: bool,
    step: int = 0,
) -> tf.data.Dataset:
    """Return this rank's batches of some epochs, one after the other.

    Args:
        reader: the training split.
        assignment: which rows this rank meets, and when.
        spec: the dataset's columns.
        epochs: the epochs.
        bare: whether the model takes its single input bare instead of in a dict.
        step: the step of the first epoch to begin with.

    Returns:
        A dataset of ``(features, label)`` or ``(features, label, weight)``; every tensor is
        ``[local batch, …]``.
    """
    weighted = assignment.remainder == "pad"

    def batches() -> Iterator[tuple[Records] | tuple[Records, Weights | None]]:
        for epoch in epochs:
            for batch in assignment.epoch(epoch, step if epoch == epochs.start else 0):
                records = reader.read(batch.rows)
                yield (records, batch.weights) if weighted else (records,)

    signature = [tf.TensorSpec([assignment.local_batch_size], tf.string)]
    if weighted:
        signature.append(tf.TensorSpec([assignment.local_batch_size], tf.float32))
    source = tf.data.Dataset.from_generator(batches, output_signature=tuple(signature))
    return source.map(_decoder(spec, bare=bare)).prefetch(_READ_AHEAD)


def evaluation_dataset(
    reader: ShardReader, spec: FeatureSpec, rows: range, *, batch_size: int, bare: bool
) -> tf.data.Dataset:
    """Return some rows in order, with their exact number of batches asserted.

    Args:
        reader: the split.
        spec: the dataset's columns.
        rows: the rows to return.
        batch_size: rows a batch; the last one may be smaller.
        bare: as for `training_dataset`.
    """
    starts = range(rows.start, rows.stop, batch_size)

    def batches() -> Iterator[Records]:
        for start in starts:
            yield reader.read(np.arange(start, min(start + batch_size, rows.stop)))

    source = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec([None], tf.string)
    )
    decoded = source.map(_decoder(spec, bare=bare)).prefetch(_READ_AHEAD)
    return decoded.apply(tf.data.experimental.assert_cardinality(len(starts)))

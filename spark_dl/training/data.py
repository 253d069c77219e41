"""From shards to batches: the rows that the assignment names, in its order.

A shard is checked against its manifest once (length and SHA-256), then read through a memory map:
rows are met in any order without being copied into the process before they are needed. Whole
batches are decoded at once, and of packed shards whole windows of packs (`spark_dl.shards.order`).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from spark_dl.errors import ShardError
from spark_dl.schema import tensors
from spark_dl.shards.assignment import Batch, locate
from spark_dl.shards.order import WINDOW_PACKS, pack_rows
from spark_dl.storage import is_local, join, normalise
from spark_dl.storage.cache import HostCache

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
#: Windows of packs that are parsed at a time.
_PARSERS: Final = 2
#: Shards that are copied to this host at a time.
_COPIERS: Final = 4


class ShardReader:
    """Random access to the rows of one split.

    Args:
        folder: the dataset's folder. What is not on a mounted file system is copied to this host.
        shards: the split's shards, in the order of the manifest.
        rows_per_record: rows that the manifest says a record holds.
        cache: where copies are kept; by default `HostCache`'s own place.

    Raises:
        ShardError: a shard is missing, or differs from what the manifest says.
    """

    def __init__(
        self,
        folder: str,
        shards: Sequence[Shard],
        rows_per_record: int = 1,
        cache: HostCache | None = None,
    ) -> None:
        """Map the shards and index their records."""
        self.rows_per_record = rows_per_record
        self._maps = _open_all(normalise(folder), shards, cache)
        indices = [
            _index(data, shard, rows_per_record)
            for data, shard in zip(self._maps, shards, strict=True)
        ]
        self._shard_records = [len(index) for index in indices]
        self._spans = np.concatenate(indices) if indices else np.zeros((0, 2), np.int64)
        self._record_rows = pack_rows([shard.rows for shard in shards], rows_per_record)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._record_rows.sum())

    def read(self, records: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the records of the given numbers, in their order."""
        shards, _ = locate(records, self._shard_records)
        return [
            self._maps[s][start:end]
            for s, (start, end) in zip(shards.tolist(), self._spans[records].tolist(), strict=True)
        ]

    def read_rows(self, rows: npt.NDArray[np.int64]) -> tuple[list[bytes], npt.NDArray[np.int64]]:
        """Return the records that hold the given rows, each once, and the rows' numbers in them."""
        records, within = locate(rows, self._record_rows)
        wanted, which = np.unique(records, return_inverse=True)
        counts = self._record_rows[wanted]
        return self.read(wanted), (np.cumsum(counts) - counts)[which] + within


def _open_all(
    folder: str, shards: Sequence[Shard], cache: HostCache | None
) -> list[mmap.mmap | bytes]:
    if is_local(folder):
        return [_open(join(folder, shard.path), shard) for shard in shards]
    copies = cache or HostCache()
    with ThreadPoolExecutor(_COPIERS, thread_name_prefix="shards") as pool:
        return list(pool.map(lambda shard: _open_copy(copies, folder, shard), shards))


def _open_copy(cache: HostCache, folder: str, shard: Shard) -> mmap.mmap | bytes:
    path = join(folder, shard.path)
    # the map keeps the copy's lock, so that it makes room for no other while it is read
    with cache.open(path, size=shard.bytes, checksum=shard.checksum) as file:
        return _map(file)


def _map(file: IO[bytes]) -> mmap.mmap | bytes:
    size = os.fstat(file.fileno()).st_size
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


def _open(path: str, shard: Shard) -> mmap.mmap | bytes:
    try:
        with open(path, "rb") as file:
            data = _map(file)
    except OSError as error:
        msg = (
            f"shard {path} cannot be read: {error}; executors must see the dataset's folder under "
            "the same path"
        )
        raise ShardError(msg) from error
    if len(data) != shard.bytes:
        msg = (
            f"shard {path} has {len(data)} bytes, its manifest says {shard.bytes}: prepare the "
            "dataset again"
        )
        raise ShardError(msg)
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != shard.checksum:
        msg = (
            f"shard {path} is damaged: its checksum is {found}, its manifest says {shard.checksum}"
        )
        raise ShardError(msg)
    return data


def _index(data: mmap.mmap | bytes, shard: Shard, rows_per_record: int) -> npt.NDArray[np.int64]:
    """Return start and end of each record's data, int64 [rows, 2]."""
    spans = []
    position = 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        start = position + _HEADER_BYTES
        spans.append((start, start + length))
        position = start + length + _FOOTER_BYTES
    expected = -(-shard.rows // rows_per_record)
    if position != len(data) or len(spans) != expected:
        msg = (
            f"shard {shard.path} holds {len(spans)} records, its manifest says {expected}: "
            "prepare the dataset again"
        )
        raise ShardError(msg)
    return np.array(spans, np.int64).reshape(-1, 2)


Records = list[bytes]
Rows = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


def _decoder(spec: FeatureSpec, *, bare: bool) -> Callable[..., tuple[Any, ...]]:
    """Return the function from parsed features to what Keras takes: (x, y[, sample_weight])."""

    def decode(parsed: dict[str, Any], factors: tf.Tensor | None = None) -> tuple[Any, ...]:
        features, label, weight = tensors.decode(parsed, spec)
        x = next(iter(features.values())) if bare else features
        if weight is not None and factors is not None:
            weight = tf.cast(weight, factors.dtype) * factors
        elif weight is None:
            weight = factors
        return (x, label) if weight is None else (x, label, weight)

    return decode


def _record_decoder(spec: FeatureSpec, *, bare: bool) -> Callable[..., tuple[Any, ...]]:
    """Return the function from records of a row each."""
    parsers, decode = tensors.example_features(spec), _decoder(spec, bare=bare)
    return lambda records, *factors: decode(tf.io.parse_example(records, parsers), *factors)


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
    if reader.rows_per_record > 1:
        local = assignment.local_batch_size

        def pieces() -> Iterator[Batch]:
            for epoch in epochs:
                cut = assignment.epoch if _is_ragged(spec) else assignment.pieces
                yield from cut(epoch, step if epoch == epochs.start else 0)

        return (
            _packed(reader, pieces, spec, batch_size=local, weighted=weighted)
            .map(_decoder(spec, bare=bare))
            .prefetch(_READ_AHEAD)
        )

    def batches() -> Iterator[tuple[Records] | tuple[Records, Weights | None]]:
        for epoch in epochs:
            for batch in assignment.epoch(epoch, step if epoch == epochs.start else 0):
                records = reader.read(batch.rows)
                yield (records, batch.weights) if weighted else (records,)

    signature = [tf.TensorSpec([assignment.local_batch_size], tf.string)]
    if weighted:
        signature.append(tf.TensorSpec([assignment.local_batch_size], tf.float32))
    source = tf.data.Dataset.from_generator(batches, output_signature=tuple(signature))
    return source.map(_record_decoder(spec, bare=bare)).prefetch(_READ_AHEAD)


def _is_ragged(spec: FeatureSpec) -> bool:
    return any(entry.size is None for entry in spec.entries)


def _packed(
    reader: ShardReader,
    pieces: Callable[[], Iterator[Batch]],
    spec: FeatureSpec,
    *,
    batch_size: int,
    weighted: bool = False,
) -> tf.data.Dataset:
    """Return the parsed features of batches, from packed shards.

    A piece is what is read and parsed at once, and the batches are cut from the pieces; or, where a
    column's length varies, gathered whole from a few of them: such rows cannot be concatenated.
    """
    ragged = _is_ragged(spec)

    def windows() -> Iterator[tuple[Records, Rows] | tuple[Records, Rows, Weights]]:
        for piece in _together(pieces(), reader.rows_per_record) if ragged else pieces():
            if len(piece.rows):
                records, rows = reader.read_rows(piece.rows)
                yield (records, rows) if piece.weights is None else (records, rows, piece.weights)

    def parse(records: tf.Tensor, rows: tf.Tensor, *factors: tf.Tensor) -> tuple[Any, ...]:
        return (tensors.packed_rows(records, rows, spec), *factors)

    signature = [tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)]
    if weighted:
        signature.append(tf.TensorSpec([None], tf.float32))
    source = tf.data.Dataset.from_generator(windows, output_signature=tuple(signature))
    parsed = source.map(parse, num_parallel_calls=_PARSERS, deterministic=True)
    if not ragged:
        return parsed.rebatch(batch_size)
    return parsed.flat_map(
        lambda *rows: tf.data.Dataset.from_tensor_slices(
            tf.nest.map_structure(lambda value: _stacked(value, batch_size), rows)
        )
    )


def _together(batches: Iterator[Batch], rows_per_record: int) -> Iterator[Batch]:
    """Join whole batches to pieces of about a window's rows; a shorter last batch stays alone."""
    held: list[Batch] = []
    for batch in batches:
        rows = sum(len(one.rows) for one in held)
        if held and (
            len(batch.rows) != len(held[0].rows) or rows >= WINDOW_PACKS * rows_per_record
        ):
            yield _joined(held)
            held = []
        held.append(batch)
    if held:
        yield _joined(held)


def _joined(batches: Sequence[Batch]) -> Batch:
    weights = [batch.weights for batch in batches if batch.weights is not None]
    return Batch(
        np.concatenate([batch.rows for batch in batches]),
        np.concatenate(weights) if weights else None,
    )


def _stacked(value: Any, batch_size: int) -> Any:  # noqa: ANN401  tensorflow has no types
    """Return rows ``[n, …]`` as batches ``[n / batch, batch, …]``."""
    if isinstance(value, tf.RaggedTensor):
        rows = value.nrows()
        length = tf.minimum(rows, batch_size)
        return tf.RaggedTensor.from_uniform_row_length(value, length)
    length = tf.minimum(tf.shape(value)[0], batch_size)
    return tf.reshape(value, tf.concat([[-1, length], tf.shape(value)[1:]], axis=0))


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

    def batches() -> Iterator[Batch]:
        for start in starts:
            yield Batch(np.arange(start, min(start + batch_size, rows.stop)), None)

    if reader.rows_per_record > 1:
        joined = partial(_together, rows_per_record=reader.rows_per_record)
        parsed = _packed(reader, lambda: joined(batches()), spec, batch_size=batch_size)
        decoded = parsed.map(_decoder(spec, bare=bare)).prefetch(_READ_AHEAD)
    else:
        source = tf.data.Dataset.from_generator(
            lambda: (reader.read(batch.rows) for batch in batches()),
            output_signature=tf.TensorSpec([None], tf.string),
        )
        decoded = source.map(_record_decoder(spec, bare=bare)).prefetch(_READ_AHEAD)
    return decoded.apply(tf.data.experimental.assert_cardinality(len(starts)))

"""From shards to batches: the rows that the assignment names, in its order.

A shard is checked against its manifest once (length and SHA-256), then read through a memory map:
rows are met in any order without being copied into the process before they are needed. What is not
mounted is copied to this host in the background, first the shards that the next rows lie in. Whole
batches are decoded at once, and of packed shards whole windows of packs (`spark_dl.shards.order`).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from spark_dl.errors import ShardError
from spark_dl.schema import tensors
from spark_dl.shards.assignment import EMPTY, Batch, locate, piece_of
from spark_dl.shards.order import WINDOW_PACKS, pack_rows
from spark_dl.storage import is_local, join, normalise
from spark_dl.storage.cache import HostCache
from spark_dl.training.read_ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spark_dl.schema import FeatureSpec
    from spark_dl.shards import Shard
    from spark_dl.shards.assignment import Assignment, Piece

__all__ = ["ShardReader", "as_it_stands", "evaluation_dataset", "training_dataset"]

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
#: Has a function traced as it stands. None of ours has an `if` or `for` over tensors, and reading
#: their source in search of some took AutoGraph nearly half of what came between import and step.
as_it_stands: Final = tf.autograph.experimental.do_not_convert


#: A shard's bytes, and start and end of each record in them, int64 [records, 2].
_Records = tuple["mmap.mmap | bytes", "npt.NDArray[np.int64]"]


class ShardReader:
    """Random access to the rows of one split.

    Args:
        folder: the dataset's folder. What is not on a mounted file system is copied to this host,
            while rows are read.
        shards: the split's shards, in the order of the manifest.
        rows_per_record: rows that the manifest says a record holds.
        cache: where copies are kept; by default `HostCache`'s own place.

    Attributes:
        record_rows: rows of each record, int64 [records].

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
        """Map the shards and index their records; of those that are copied, as they come."""
        self.rows_per_record = rows_per_record
        self.record_rows = pack_rows([shard.rows for shard in shards], rows_per_record)
        self._shards = shards
        self._shard_records = [-(-shard.rows // rows_per_record) for shard in shards]
        self._firsts = np.cumsum([0, *self._shard_records])
        self._spans = np.zeros((len(self.record_rows), 2), np.int64)
        self._maps: list[Any] = [None] * len(shards)
        self._ahead: ReadAhead[_Records] | None = None
        root = normalise(folder)
        if is_local(root):
            for number in range(len(shards)):
                self._keep(number, self._records(number, _open(root, shards[number])))
        else:
            copies = cache or HostCache()
            self._ahead = ReadAhead(
                len(shards),
                lambda number: self._records(number, _open_copy(copies, root, shards[number])),
                threads=_COPIERS,
            )

    @property
    def failure(self) -> Exception | None:
        """What a shard that was copied gave instead of its rows."""
        return None if self._ahead is None else self._ahead.failure

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.record_rows.sum())

    def read(self, records: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        """Return the records of the given numbers, in their order: bytes [n].

        Raises:
            ShardError: a shard that was copied holds other records than the manifest says.
            StorageError: a shard cannot be copied.
        """
        shards, _ = locate(records, self._shard_records)
        self._await(np.unique(shards).tolist())
        found = np.empty(len(records), object)
        found[:] = [
            self._maps[s][start:end]
            for s, (start, end) in zip(shards.tolist(), self._spans[records].tolist(), strict=True)
        ]
        return found

    def _await(self, shards: list[int]) -> None:
        if self._ahead is None:
            return
        missing = [number for number in shards if self._maps[number] is None]
        for number, records in zip(missing, self._ahead.get(missing), strict=True):
            self._keep(number, records)

    def _records(self, number: int, data: mmap.mmap | bytes) -> _Records:
        return data, _index(data, self._shards[number], self.rows_per_record)

    def _keep(self, number: int, records: _Records) -> None:
        data, spans = records
        self._spans[self._firsts[number] : self._firsts[number + 1]] = spans
        self._maps[number] = data  # last: other threads look whether it is there


def _open_copy(cache: HostCache, folder: str, shard: Shard) -> mmap.mmap | bytes:
    path = join(folder, shard.path)
    # the map keeps the copy's lock, so that it makes room for no other while it is read
    with cache.open(path, size=shard.bytes, checksum=shard.checksum) as file:
        return _map(file)


def _map(file: IO[bytes]) -> mmap.mmap | bytes:
    size = os.fstat(file.fileno()).st_size
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


def _open(folder: str, shard: Shard) -> mmap.mmap | bytes:
    path = join(folder, shard.path)
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


Arrays = tuple["npt.NDArray[Any] | None", ...]
#: Number of pieces, and what gives each.
Pieces = tuple[int, "Callable[[int], Piece]"]


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
    weighted, local = assignment.remainder == "pad", assignment.local_batch_size
    if reader.rows_per_record > 1:
        cut = _by_batches if _is_ragged(spec) else _by_windows
        pieces = cut(assignment, epochs, step)
        return _packed(reader, pieces, spec, bare=bare, batch_size=local, weighted=weighted)
    steps = range(step, len(epochs) * assignment.steps_per_epoch)

    def read(number: int) -> Arrays:
        epoch, own_step = divmod(steps[number], assignment.steps_per_epoch)
        rows, weights = assignment.batch(epochs[epoch], own_step)
        records = reader.read(rows)
        return (records, weights) if weighted else (records,)

    dtypes = (tf.string, tf.float32) if weighted else (tf.string,)
    source = _source(len(steps), read, dtypes, num_rows=local)
    return source.map(as_it_stands(_record_decoder(spec, bare=bare))).prefetch(_READ_AHEAD)


def _by_windows(assignment: Assignment, epochs: range, step: int) -> Pieces:
    """Return the pieces of some epochs, cut where windows of the order end."""
    size = assignment.pieces_per_epoch

    def piece(number: int) -> Piece:
        epoch, own = divmod(number, size)
        return assignment.piece(epochs[epoch], own, 0 if epoch else step)

    return len(epochs) * size, piece


def _by_batches(assignment: Assignment, epochs: range, step: int) -> Pieces:
    """Return the pieces of some epochs, of whole batches."""
    length = _batches_together(assignment.rows_per_record, assignment.local_batch_size)
    steps = assignment.steps_per_epoch
    size = -(-steps // length)

    def piece(number: int) -> Piece:
        epoch, own = divmod(number, size)
        mine = range(own * length, min((own + 1) * length, steps))
        batches = [assignment.batch(epochs[epoch], one) for one in mine if epoch > 0 or one >= step]
        if not batches:
            return EMPTY
        rows, weights = zip(*batches, strict=True)
        weighted = None if weights[0] is None else np.concatenate(weights)
        return piece_of(Batch(np.concatenate(rows), weighted), assignment.record_rows)

    return len(epochs) * size, piece


def _batches_together(rows_per_record: int, batch_size: int) -> int:
    """Return how many batches have about as many rows as a window."""
    return max(WINDOW_PACKS * rows_per_record // batch_size, 1)


def _source(
    count: int,
    read: Callable[[int], Arrays],
    dtypes: tuple[tf.DType, ...],
    num_rows: int | None = None,
) -> tf.data.Dataset:
    """Return what `read` gives for each number below `count`, in order: arrays ``[num_rows]``.

    Not by `tf.data.Dataset.from_generator`: its op sets M_TRIM_THRESHOLD, so that malloc gives
    large blocks back to the kernel at once, to take them again. Whatever computes with large
    tensors in this process would be slower for it, the model's own steps too.
    """

    def element(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found = tf.numpy_function(lambda one: read(int(one)), [number], dtypes)
        return tuple(tf.ensure_shape(value, [num_rows]) for value in found)

    return tf.data.Dataset.range(count).map(as_it_stands(element))


def _is_ragged(spec: FeatureSpec) -> bool:
    return any(entry.size is None for entry in spec.entries)


def _packed(
    reader: ShardReader,
    pieces: Pieces,
    spec: FeatureSpec,
    *,
    bare: bool,
    batch_size: int,
    weighted: bool = False,
) -> tf.data.Dataset:
    """Return batches from packed shards.

    A piece is what is read, parsed and decoded at once, and the batches are cut from the pieces.
    Where a column's length varies, a piece must be of whole batches, which are decoded one by one:
    rows are filled up to the longest of their batch.
    """
    decode = _decoder(spec, bare=bare)
    count, piece = pieces

    def read(number: int) -> Arrays:
        records, rows, weights = piece(number)
        # TensorFlow gathers by 32 bits faster; a few records hold no more rows than that
        read = reader.read(records), rows.astype(np.int32)
        return (*read, weights) if weighted else read

    def parse(records: tf.Tensor, rows: tf.Tensor, *factors: tf.Tensor) -> tuple[Any, ...]:
        return (tensors.packed_rows(records, rows, spec), *factors)

    dtypes = (tf.string, tf.int32, tf.float32) if weighted else (tf.string, tf.int32)
    source = _source(count, read, dtypes)
    source = source.filter(as_it_stands(lambda records, *_: tf.size(records) > 0))
    settings = {"num_parallel_calls": _PARSERS, "deterministic": True}
    if not _is_ragged(spec):
        decoded = source.map(as_it_stands(lambda *read: decode(*parse(*read))), **settings)
        return decoded.rebatch(batch_size).prefetch(_READ_AHEAD)

    def cut(*rows: Any) -> tf.data.Dataset:  # noqa: ANN401  tensorflow has no types
        stacked = tf.nest.map_structure(lambda value: _stacked(value, batch_size), rows)
        return tf.data.Dataset.from_tensor_slices(stacked)

    batches = source.map(as_it_stands(parse), **settings).flat_map(as_it_stands(cut))
    return batches.map(as_it_stands(decode)).prefetch(_READ_AHEAD)


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

    def read(number: int) -> Arrays:
        start = starts[number]
        return (reader.read(np.arange(start, min(start + batch_size, rows.stop))),)

    if reader.rows_per_record > 1:
        pieces = _in_order(reader, rows, batch_size)
        decoded = _packed(reader, pieces, spec, bare=bare, batch_size=batch_size)
    else:
        source = _source(len(starts), read, (tf.string,))
        decode = as_it_stands(_record_decoder(spec, bare=bare))
        decoded = source.map(decode).prefetch(_READ_AHEAD)
    return decoded.apply(tf.data.experimental.assert_cardinality(len(starts)))


def _in_order(reader: ShardReader, rows: range, batch_size: int) -> Pieces:
    """Return the pieces of rows in order, each of whole batches; a shorter last one is alone."""
    length = _batches_together(reader.rows_per_record, batch_size) * batch_size
    full = rows[: len(rows) // batch_size * batch_size]
    ends = [*full[length::length], full.stop]

    def piece(number: int) -> Piece:
        begin = ends[number - 1] if number else rows.start
        end = ends[number] if number < len(ends) else rows.stop
        return piece_of(Batch(np.arange(begin, end), None), reader.record_rows)

    return len(ends) + 1, piece

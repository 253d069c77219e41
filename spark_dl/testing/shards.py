"""Small datasets without Spark: shards written by TensorFlow itself, an independent writer."""

from __future__ import annotations

import hashlib
import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from spark_dl import __version__
from spark_dl.schema import FeatureSpec, Role, SpecEntry
from spark_dl.schema.tensors import ROW_SPLITS
from spark_dl.schema.types import ExampleKind
from spark_dl.shards import Manifest, Shard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

__all__ = ["write_shards"]

Columns = dict[str, "npt.NDArray[np.generic]"]


def write_shards(
    folder: str,
    entries: tuple[SpecEntry, ...],
    splits: Mapping[str, Columns],
    *,
    shards_per_split: int = 3,
    rows_per_record: int = 1,
) -> Manifest:
    """Write arrays as a dataset.

    Args:
        folder: where; made if it is not there.
        entries: the columns.
        splits: split → name of an entry → array ``[rows, *shape]``; of arrays where the first
            dimension varies.
        shards_per_split: number of files of each split; their rows differ in number by at most one.
        rows_per_record: rows that are packed into a record.

    Returns:
        The manifest, which is written too.

    Example:
        >>> spec = (SpecEntry(name="y", column="y", dtype="float32", role=Role.LABEL),)
        >>> write_shards(folder, spec, {"train": {"y": np.zeros(9)}})  # doctest: +SKIP
    """
    shards = []
    for split, columns in splits.items():
        os.makedirs(os.path.join(folder, split), exist_ok=True)
        rows = len(next(iter(columns.values())))
        for number, part in enumerate(np.array_split(np.arange(rows), shards_per_split)):
            path = f"{split}/part-{number:05d}.tfrecord"
            packs = [part[at : at + rows_per_record] for at in range(0, len(part), rows_per_record)]
            _write(os.path.join(folder, path), entries, columns, packs)
            with open(os.path.join(folder, path), "rb") as file:
                data = file.read()
            checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
            shard = Shard(
                path=path, rows=len(part), bytes=len(data), checksum=checksum, split=split
            )
            shards.append(shard)
    totals = {split: len(next(iter(columns.values()))) for split, columns in splits.items()}
    manifest = Manifest(
        spec=FeatureSpec(entries=entries),
        rows_per_record=rows_per_record,
        shards=tuple(shards),
        totals=totals,
        splits={split: 1 / len(totals) for split in totals},
        seed=0,
        fingerprint=hashlib.sha256("".join(s.checksum for s in shards).encode()).hexdigest(),
        spark_dl_version=__version__,
    )
    manifest.write(folder)
    return manifest


def _write(
    path: str,
    entries: tuple[SpecEntry, ...],
    columns: Columns,
    packs: Sequence[npt.NDArray[np.int64]],
) -> None:
    import tensorflow as tf

    lists = {
        ExampleKind.INT64: lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=v)),
        ExampleKind.FLOAT: lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=v)),
        ExampleKind.BYTES: lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)),
    }
    with tf.io.TFRecordWriter(path) as writer:
        for rows in packs:
            features = {}
            for entry in entries:
                values = [_flat(columns[entry.name][row]) for row in rows]
                features[entry.name] = lists[entry.info.example](
                    list(itertools.chain.from_iterable(values))
                )
                if entry.size is None:  # records of one row have no need of it, and do not mind
                    splits = np.cumsum([0, *map(len, values)]).tolist()
                    features[entry.name + ROW_SPLITS] = lists[ExampleKind.INT64](splits)
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def _flat(value: Any) -> list[Any]:  # noqa: ANN401  an element of an array of any type
    return [value] if isinstance(value, bytes) else list(np.ravel(value).tolist())


def dense_entries(size: int, label: str = "float32") -> tuple[SpecEntry, ...]:
    """Return entries of a dataset with one vector ``x`` of `size` floats and a label ``y``."""
    return (
        SpecEntry(name="x", column="x", dtype="float32", shape=(size,)),
        SpecEntry(name="y", column="y", dtype=label, role=Role.LABEL),
    )

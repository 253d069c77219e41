"""How many shards a split gets, and how Spark is made to write a row into its own shard.

Pure. ``DataFrame.repartition(n, key)`` puts a row into partition ``pmod(murmur3(key), n)``. So we
hand it, for each shard, a key whose hash is the shard's own number: no sampling, no chance, the
same on every run and cluster.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAX_PACK_ROWS",
    "MIN_SHARDS",
    "PACK_BYTES",
    "ROWS_A_SHARD",
    "TARGET_SHARD_BYTES",
    "pack_size",
    "partition_keys",
    "shard_count",
]

#: Size that a shard of a large split has about: large enough to stream, small enough to move.
TARGET_SHARD_BYTES: Final = 64 * 2**20
#: Shards of a split that is large enough for them, so that a few readers can share it.
MIN_SHARDS: Final = 8
#: Below this, more files would cost more than they give.
ROWS_A_SHARD: Final = 128

#: Size that a packed record has about: parsed at once, and many of them fit into memory.
PACK_BYTES: Final = 256 * 2**10
MAX_PACK_ROWS: Final = 1024

_SEED: Final = 42  # Spark's own, in HashPartitioning
_MASK: Final = 0xFFFFFFFF


def shard_count(rows: int, size_bytes: int, at_least: int = 1) -> int:
    """Return the number of shards of a split.

    Args:
        rows: its rows.
        size_bytes: about how many bytes they will have.
        at_least: shards to make however small they are, such as one for each rank; but no more than
            there are rows.

    Example:
        >>> shard_count(1437, 400_000), shard_count(180, 50_000), shard_count(10**7, 2**31)
        (8, 1, 32)
        >>> shard_count(180, 50_000, at_least=3), shard_count(2, 100, at_least=3)
        (3, 2)
    """
    by_size = -(-size_bytes // TARGET_SHARD_BYTES)
    by_rows = rows // ROWS_A_SHARD
    return max(1, min(at_least, rows), min(max(by_size, MIN_SHARDS), by_rows))


def pack_size(rows: int, size_bytes: int) -> int:
    """Return how many rows a record should hold.

    Args:
        rows: rows of all splits.
        size_bytes: about how many bytes they will have, each in a record of its own.

    Example:
        >>> pack_size(10**6, 134 * 10**6), pack_size(1000, 3000 * 1000), pack_size(10, 10**8)
        (1024, 87, 1)
    """
    return max(1, min(MAX_PACK_ROWS, PACK_BYTES * rows // max(size_bytes, 1)))


def partition_keys(partitions: int) -> list[int]:
    """Return one key for each partition, which ``repartition(partitions, key)`` puts there.

    Args:
        partitions: number of partitions.

    Returns:
        int32 keys, in order of their partition.
    """
    keys: dict[int, int] = {}
    key = 0
    while len(keys) < partitions:
        keys.setdefault(_murmur3(key) % partitions, key)
        key += 1
    return [keys[partition] for partition in range(partitions)]


def _murmur3(value: int) -> int:
    """Return Spark's hash of a 32-bit integer (Murmur3_x86_32), as a signed number."""
    mixed = value * 0xCC9E2D51 & _MASK
    mixed = _rotate(mixed, 15) * 0x1B873593 & _MASK
    hashed = _rotate(_SEED ^ mixed, 13) * 5 + 0xE6546B64 & _MASK
    hashed ^= 4  # length in bytes
    hashed = (hashed ^ hashed >> 16) * 0x85EBCA6B & _MASK
    hashed = (hashed ^ hashed >> 13) * 0xC2B2AE35 & _MASK
    hashed ^= hashed >> 16
    return hashed - 2**32 if hashed >= 2**31 else hashed


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & _MASK

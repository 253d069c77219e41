"""From a hash to a split, and from a shard to the partition that writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_dl.errors import ConfigError
from spark_dl.shards.placement import (
    MIN_SHARDS,
    TARGET_SHARD_BYTES,
    partition_keys,
    shard_count,
)
from spark_dl.shards.splits import check_splits, split_of

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
hashes = st.integers(-(2**63), 2**63 - 1)


@given(hashes)
def test_every_hash_has_a_split(value):
    assert split_of(value, SPLITS) in SPLITS
    assert split_of(value, {"all": 1.0}) == "all"


@pytest.mark.parametrize(
    ("value", "split"),
    # hashes are signed: negative ones are the upper half of the interval
    [(0, "train"), (2**63 - 1, "train"), (-(2**63), "train"), (-1, "test")],
)
def test_ends_of_the_interval(value, split):
    assert split_of(value, SPLITS) == split


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_shares_are_the_fractions(weights):
    splits = {f"s{n}": weight / sum(weights) for n, weight in enumerate(weights)}
    step = 2**64 // 5000
    found = [split_of(n * step - 2**63, splits) for n in range(5000)]
    for name, fraction in splits.items():
        assert found.count(name) / 5000 == pytest.approx(fraction, abs=1e-3)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({}, "none given"),
        ({"train": 0.9}, r"sum to 0\.9, expected 1"),
        ({"train": 0.9, "test": 0.2}, r"sum to 1\.1, expected 1"),
        ({"train": 1.0, "test": 0.0}, r"test has the fraction 0\.0"),
        ({"train": 1.5, "test": -0.5}, "test has the fraction -0.5"),
        ({"train": float("nan")}, "fraction nan"),
        ({"a/b": 1.0}, "'a/b' becomes a folder"),
        ({"": 1.0}, "'' becomes a folder"),
        ({"..": 1.0}, "becomes a folder"),
        ({"train": 0.5, "Train": 0.5}, "differ in case only"),
    ],
)
def test_splits_that_are_refused(splits, message):
    with pytest.raises(ConfigError, match=message):
        check_splits(splits)


def test_fractions_may_be_rounded():
    thirds = {"a": 0.3333333, "b": 0.3333333, "c": 0.3333333}
    assert check_splits(thirds) == thirds


@pytest.mark.parametrize("partitions", [1, 2, 7, 100])
def test_every_partition_has_a_key(partitions):
    keys = partition_keys(partitions)
    assert len(set(keys)) == len(keys) == partitions


def test_keys_stay_what_they_are():
    # tests/spark compares them with Spark's own hash
    assert partition_keys(7) == [12, 0, 1, 9, 3, 2, 11]


@given(st.integers(0, 10**9), st.integers(0, 2**42))
def test_shards_are_neither_many_nor_large(rows, size_bytes):
    count = shard_count(rows, size_bytes)
    assert count >= 1
    if rows >= 10**6:
        assert count >= MIN_SHARDS
        assert size_bytes / count <= TARGET_SHARD_BYTES or count >= rows // 128


@pytest.mark.parametrize(
    ("rows", "size_bytes", "count"),
    [(0, 0, 1), (1, 100, 1), (180, 50_000, 1), (1437, 400_000, 8), (10**7, 2**31, 32)],
)
def test_shards_of_known_splits(rows, size_bytes, count):
    assert shard_count(rows, size_bytes) == count


def test_no_rank_is_without_a_shard_where_there_are_rows_enough():
    assert shard_count(180, 50_000, at_least=5) == 5
    assert shard_count(3, 100, at_least=5) == 3
    assert shard_count(10**7, 2**31, at_least=5) == 32

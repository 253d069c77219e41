"""Rows reach ranks as the contract says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_dl.errors import ConfigError, DataError
from spark_dl.shards.assignment import Assignment, evaluation_rows, locate

ranks = st.integers(1, 5)
local_sizes = st.integers(1, 6)
row_counts = st.integers(1, 70)
seeds = st.integers(-(2**63), 2**63 - 1)
epochs = st.integers(0, 3)


def assignment(rows, world_size, rank, global_batch_size, **settings):
    return Assignment(
        rows=rows,
        world_size=world_size,
        rank=rank,
        global_batch_size=global_batch_size,
        **{"seed": 0, **settings},
    )


def global_batches(rows, world_size, global_batch_size, epoch, **settings):
    """The rows and weights of each step, over all ranks in order."""
    parts = [
        list(assignment(rows, world_size, rank, global_batch_size, **settings).epoch(epoch))
        for rank in range(world_size)
    ]
    assert len({len(part) for part in parts}) == 1, "steps differ between ranks"
    return [
        (
            np.concatenate([batch.rows for batch in step]),
            None if step[0].weights is None else np.concatenate([b.weights for b in step]),
        )
        for step in zip(*parts, strict=True)
    ]


@given(row_counts, ranks, local_sizes, seeds, epochs, st.booleans())
def test_drop_meets_every_row_at_most_once(rows, world_size, local, seed, epoch, shuffle):
    size = local * world_size
    rows += size
    steps = global_batches(rows, world_size, size, epoch, seed=seed, shuffle=shuffle)
    met = np.concatenate([step for step, _ in steps])
    assert len(met) == len(np.unique(met)) == rows // size * size
    assert met.min() >= 0
    assert met.max() < rows
    assert all(weights is None for _, weights in steps)


@given(row_counts, ranks, local_sizes, seeds, epochs, st.booleans())
def test_pad_meets_every_row_exactly_once(rows, world_size, local, seed, epoch, shuffle):
    size = local * world_size
    steps = global_batches(
        rows, world_size, size, epoch, seed=seed, shuffle=shuffle, remainder="pad"
    )
    real = [step[weights > 0] for step, weights in steps]
    assert sorted(np.concatenate(real)) == list(range(rows))
    for step, weights in steps:
        assert len(step) == size
        # the weighted sum divided by the batch size is the mean over the real rows
        assert weights.sum() == pytest.approx(size, rel=1e-6)
        assert weights.dtype == np.float32
        assert set(step[weights == 0]) <= {step[0]}


@given(row_counts, local_sizes, seeds, epochs, st.sampled_from(["drop", "pad"]))
def test_global_batches_do_not_depend_on_the_number_of_ranks(rows, local, seed, epoch, remainder):
    size = local * 12
    rows += size
    one, *others = (
        global_batches(rows, world_size, size, epoch, seed=seed, remainder=remainder)
        for world_size in (1, 2, 3, 4)
    )
    for other in others:
        for (rows_a, weights_a), (rows_b, weights_b) in zip(one, other, strict=True):
            np.testing.assert_array_equal(rows_a, rows_b)
            np.testing.assert_array_equal(weights_a, weights_b)


@given(row_counts, ranks, seeds, epochs, st.sampled_from(["drop", "pad"]), st.data())
def test_a_step_can_be_had_by_number_and_an_epoch_from_any_step(
    rows, world_size, seed, epoch, remainder, data
):
    size = 3 * world_size
    rank = data.draw(st.integers(0, world_size - 1))
    one = assignment(rows + size, world_size, rank, size, seed=seed, remainder=remainder)
    whole = list(one.epoch(epoch))
    assert len(whole) == one.steps_per_epoch
    start = data.draw(st.integers(0, one.steps_per_epoch))
    rest = list(one.epoch(epoch, start))
    assert len(rest) == len(whole) - start
    for step, batch in enumerate(rest, start):
        np.testing.assert_array_equal(batch.rows, whole[step].rows)
        np.testing.assert_array_equal(batch.rows, one.batch(epoch, step).rows)


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch):
        return tuple(
            np.concatenate([b.rows for b in assignment(100, 1, 0, 10, seed=seed).epoch(epoch)])
        )

    assert len({order(1, 0), order(1, 1), order(2, 0), order(-1, 0)}) == 4
    assert order(1, 0) == order(1, 0)


def test_the_order_of_a_seed_stays_the_same_between_versions():
    # a resumed run relies on it; a change here breaks resuming runs of earlier versions
    batches = assignment(8, 1, 0, 8, seed=7).epoch(2)
    assert next(batches).rows.tolist() == [4, 1, 3, 7, 6, 2, 0, 5]


def test_dropped_rows_change_with_the_epoch():
    one = assignment(10, 1, 0, 4, seed=3)
    assert one.dropped == 2
    left = {
        frozenset(range(10))
        - frozenset(np.concatenate([b.rows for b in one.epoch(epoch)]).tolist())
        for epoch in range(20)
    }
    assert len(left) > 5


def test_without_shuffle_rows_keep_their_order():
    one = assignment(10, 2, 1, 4, shuffle=False)
    assert [batch.rows.tolist() for batch in one.epoch(5)] == [[2, 3], [6, 7]]


def test_pad_fills_the_last_batch_with_its_first_row():
    last = assignment(10, 2, 1, 4, shuffle=False, remainder="pad").batch(0, 2)
    assert last.rows.tolist() == [8, 8]
    assert last.weights.tolist() == [0, 0]
    first = assignment(10, 2, 0, 4, shuffle=False, remainder="pad").batch(0, 2)
    assert first.rows.tolist() == [8, 9]
    assert first.weights.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("size", "world_size", "nearest"), [(10, 4, "8 or 12"), (3, 4, "are 4"), (7, 2, "6 or 8")]
)
def test_batch_size_that_cannot_be_divided(size, world_size, nearest):
    with pytest.raises(ConfigError, match=f"global_batch_size={size} .* {world_size} .*{nearest}"):
        assignment(100, world_size, 0, size)


def test_fewer_rows_than_a_batch():
    with pytest.raises(
        DataError, match=r"3 rows, fewer than one global batch of 4.*remainder='pad'"
    ):
        assignment(3, 2, 0, 4)
    assert assignment(3, 2, 0, 4, remainder="pad").steps_per_epoch == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"rank": 2}, ConfigError),
        ({"rank": -1}, ConfigError),
        ({"world_size": 0}, ConfigError),
        ({"global_batch_size": 0}, ConfigError),
        ({"remainder": "keep"}, ConfigError),
        ({"rows": 0}, DataError),
    ],
)
def test_numbers_out_of_range(change, error):
    settings = {"rows": 8, "world_size": 2, "rank": 0, "global_batch_size": 4, "seed": 0}
    with pytest.raises(error):
        Assignment(**{**settings, **change})


def test_there_is_no_step_after_the_last():
    one = assignment(8, 2, 0, 4)
    with pytest.raises(ConfigError, match="step 2: expected 0 <= step <= 1"):
        one.batch(0, 2)
    assert list(one.epoch(0, 2)) == []


@given(st.integers(0, 50), ranks)
def test_every_row_is_evaluated_by_exactly_one_rank(rows, world_size):
    parts = [evaluation_rows(rows, world_size, rank) for rank in range(world_size)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_locate_is_where_the_rows_are(shard_rows):
    expected = [(shard, row) for shard, count in enumerate(shard_rows) for row in range(count)]
    shards, rows = locate(np.arange(len(expected)), shard_rows)
    assert list(zip(shards.tolist(), rows.tolist(), strict=True)) == expected


@pytest.mark.parametrize("row", [-1, 5])
def test_locate_refuses_rows_outside_the_split(row):
    with pytest.raises(DataError, match="rows 0 to 4"):
        locate(np.array([row]), [3, 2])

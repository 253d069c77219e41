"""Packed shards give every rank the rows that the assignment names, in its order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_dl.errors import ConfigError
from spark_dl.schema import Role, SpecEntry
from spark_dl.shards.assignment import Assignment, Batch, evaluation_rows
from spark_dl.shards.order import WINDOW_PACKS, order_of, pack_rows
from spark_dl.testing.shards import write_shards

shards_of = st.lists(st.integers(0, 120), min_size=1, max_size=6).filter(lambda rows: sum(rows) > 0)
pack_sizes = st.integers(2, 9)
ROWS = 333
ENTRIES = (
    SpecEntry(name="x", column="x", dtype="float32", shape=(3,)),
    SpecEntry(name="n", column="n", dtype="int64"),
    SpecEntry(name="flag", column="flag", dtype="bool"),
    SpecEntry(name="word", column="word", dtype="string"),
    SpecEntry(name="y", column="y", dtype="float32", role=Role.LABEL),
)
LIST = SpecEntry(name="list", column="list", dtype="int64", shape=(None,))
rng = np.random.default_rng(1)
COLUMNS = {
    "x": rng.normal(size=(ROWS, 3)).astype(np.float32),
    "n": rng.integers(-(2**62), 2**62, ROWS),
    "flag": rng.integers(0, 2, ROWS),
    "word": np.array([b"w" * (i % 5) + bytes([1 + i % 255]) for i in range(ROWS)], object),
    "list": np.array([list(range(i, i + i % 4)) for i in range(ROWS)], object),
    "y": np.arange(ROWS, dtype=np.float32),
}


@given(shards_of, pack_sizes, st.integers(-(2**63), 2**63 - 1), st.integers(0, 3), st.booleans())
def test_an_order_of_packs_meets_every_row_once(shard_rows, size, seed, epoch, shuffle):
    rows = sum(shard_rows)
    order = order_of(rows, seed, epoch, (tuple(shard_rows), size), shuffle=shuffle)
    whole = order.take(0, rows)
    assert sorted(whole.tolist()) == list(range(rows))
    assert order.ends[-1] == rows
    if not shuffle:
        assert whole.tolist() == list(range(rows))
    cuts = [0, rows // 3, rows // 2, rows]
    pieces = [order.take(a, b) for a, b in itertools.pairwise(cuts)]
    assert np.concatenate(pieces).tolist() == whole.tolist()
    packs = np.repeat(np.arange(len(pack_rows(shard_rows, size))), pack_rows(shard_rows, size))
    for begin, end in itertools.pairwise([0, *order.ends]):
        assert len(np.unique(packs[whole[begin:end]])) <= WINDOW_PACKS


def test_an_order_of_packs_mixes_packs_and_rows_and_no_epoch_is_like_another():
    packs = ((5000,), 10)
    first, second = (
        order_of(5000, 7, epoch, packs, shuffle=True).take(0, 5000) for epoch in (0, 1)
    )
    assert (first != second).mean() > 0.9
    assert (np.diff(first) == 1).mean() < 0.02
    assert len(np.unique(first[: 10 * WINDOW_PACKS] // 10)) == WINDOW_PACKS
    assert (
        len(
            {order_of(5000, seed, 0, packs, shuffle=True).take(0, 8).tobytes() for seed in range(9)}
        )
        == 9
    )


def whole(piece):
    """Return a piece with the numbers that its rows have in the split."""
    counts = pack_rows((200, 0, 133), 7)
    starts = np.cumsum(counts) - counts
    rows = [np.arange(starts[record], starts[record] + counts[record]) for record in piece.records]
    return Batch(np.concatenate([np.zeros(0, np.int64), *rows])[piece.rows], piece.weights)


def assigned(world_size, rank, shard_rows=(200, 0, 133), size=7, **settings):
    return Assignment(
        rows=ROWS,
        world_size=world_size,
        rank=rank,
        **{"global_batch_size": 12, "seed": 3, **settings},
        shard_rows=shard_rows,
        rows_per_record=size,
    )


@given(
    st.sampled_from([1, 2, 3, 4, 6, 12]),
    st.booleans(),
    st.sampled_from(["drop", "pad"]),
    st.integers(0, 27),
)
def test_pieces_are_the_batches_and_any_number_of_ranks_sees_the_same_steps(
    world_size, shuffle, remainder, start
):
    settings = {"shuffle": shuffle, "remainder": remainder}
    alone = list(assigned(1, 0, **settings).epoch(2))
    ranks = [list(assigned(world_size, r, **settings).epoch(2)) for r in range(world_size)]
    for step, batch in enumerate(alone):
        assert np.concatenate([rank[step].rows for rank in ranks]).tolist() == batch.rows.tolist()
    for rank in range(world_size):
        mine = assigned(world_size, rank, **settings)
        batches = list(mine.epoch(2, start))
        pieces = [whole(mine.piece(2, n, start)) for n in range(mine.pieces_per_epoch)]
        for at in range(2 if remainder == "pad" else 1):
            joined = [
                np.concatenate([one[at] for one in some] or [np.zeros(0)])
                for some in (batches, pieces)
            ]
            assert joined[0].tolist() == joined[1].tolist()


def test_shards_that_do_not_hold_the_rows_are_refused():
    with pytest.raises(ConfigError, match="shards of 332 rows in all, expected 333"):
        assigned(1, 0, shard_rows=(332,))


@pytest.fixture(scope="module", params=["fixed", "varying"])
def packed(request, tmp_path_factory):
    from spark_dl.training.data import ShardReader

    entries = ENTRIES if request.param == "fixed" else (LIST, *ENTRIES)
    folder = str(tmp_path_factory.mktemp("packed"))
    manifest = write_shards(folder, entries, {"train": COLUMNS}, rows_per_record=7)
    return ShardReader(folder, manifest.split("train"), 7), manifest


def check(batch, rows):
    features, label = batch[:2]
    assert label.numpy().tolist() == rows.tolist()
    assert features["x"].numpy().tolist() == COLUMNS["x"][rows].tolist()
    assert features["n"].numpy().tolist() == COLUMNS["n"][rows].tolist()
    assert features["flag"].numpy().tolist() == (COLUMNS["flag"][rows] == 1).tolist()
    assert features["word"].numpy().tolist() == COLUMNS["word"][rows].tolist()
    if "list" in features:
        width = max(len(COLUMNS["list"][row]) for row in rows)
        expected = [COLUMNS["list"][r] + [0] * (width - len(COLUMNS["list"][r])) for r in rows]
        assert features["list"].numpy().tolist() == expected


@pytest.mark.parametrize(("world_size", "remainder", "step"), [(1, "drop", 20), (3, "pad", 5)])
def test_training_batches_are_those_of_the_assignment(packed, world_size, remainder, step):
    from spark_dl.training.data import training_dataset

    reader, manifest = packed
    assert len(reader) == ROWS
    shard_rows = tuple(shard.rows for shard in manifest.shards)
    for rank in {0, world_size - 1}:
        mine = assigned(world_size, rank, shard_rows, remainder=remainder)
        found = training_dataset(
            reader, mine, manifest.spec, epochs=range(1, 3), step=step, bare=False
        )
        expected = [*mine.epoch(1, step), *mine.epoch(2)]
        batches = list(found)
        assert len(batches) == len(expected)
        for batch, wanted in zip(batches, expected, strict=True):
            check(batch, wanted.rows)
            if remainder == "pad":
                assert batch[2].numpy().tolist() == wanted.weights.tolist()


def test_no_op_that_changes_how_malloc_works_is_used(packed):
    """TensorFlow's generator op sets M_TRIM_THRESHOLD, which makes steps on large tensors slow."""
    import tensorflow as tf

    from spark_dl.training.data import evaluation_dataset, training_dataset

    reader, manifest = packed
    shard_rows = tuple(shard.rows for shard in manifest.shards)
    mine = assigned(1, 0, shard_rows)
    datasets = [
        training_dataset(reader, mine, manifest.spec, epochs=range(2), bare=False),
        evaluation_dataset(reader, manifest.spec, range(ROWS), batch_size=10, bare=False),
    ]
    generator = tf.data.Dataset.from_generator(lambda: [1], output_signature=tf.TensorSpec([]))
    *graphs, other = [
        dataset._as_serialized_graph(
            external_state_policy=tf.data.experimental.ExternalStatePolicy.IGNORE
        ).numpy()
        for dataset in (*datasets, generator)
    ]
    assert b"GeneratorDataset" in other
    assert not any(b"GeneratorDataset" in graph for graph in graphs)


@pytest.mark.parametrize("rows_per_record", [1, 7])
@pytest.mark.parametrize("entries", [ENTRIES, (LIST, *ENTRIES)], ids=["fixed", "varying"])
def test_no_function_s_source_is_read_by_autograph(tmp_path, monkeypatch, entries, rows_per_record):
    """It finds nothing to convert in ours, and takes most of a run's start to look."""
    import tensorflow as tf
    from tensorflow.python.autograph.impl import api

    from spark_dl.training.data import ShardReader, evaluation_dataset, training_dataset
    from spark_dl.training.weighing import weigh_classes

    looked_at = []
    converted = api._convert_actual
    monkeypatch.setattr(
        api, "_convert_actual", lambda *of: looked_at.append(of[0]) or converted(*of)
    )
    path = str(tmp_path)
    manifest = write_shards(path, entries, {"train": COLUMNS}, rows_per_record=rows_per_record)
    reader = ShardReader(path, manifest.split("train"), rows_per_record)
    shard_rows = tuple(shard.rows for shard in manifest.shards)
    mine = assigned(1, 0, shard_rows, rows_per_record, remainder="pad")
    training = training_dataset(reader, mine, manifest.spec, epochs=range(1), bare=False)
    weighed = weigh_classes(training, {3: 2.0}, manifest.spec)
    evaluation = evaluation_dataset(reader, manifest.spec, range(9), batch_size=3, bare=True)
    assert next(iter(weighed))[2].shape == (12,)
    assert len(list(evaluation)) == 3
    assert not looked_at
    tf.data.Dataset.range(1).map(lambda number: -number)
    assert looked_at


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 10), (5, 67)])
def test_evaluation_meets_its_rows_in_order(packed, world_size, batch_size):
    from spark_dl.training.data import evaluation_dataset

    reader, manifest = packed
    for rank in {0, world_size - 1}:
        rows = evaluation_rows(ROWS, world_size, rank)
        dataset = evaluation_dataset(reader, manifest.spec, rows, batch_size=batch_size, bare=False)
        batches = list(dataset)
        assert len(batches) == dataset.cardinality()
        for at, batch in enumerate(batches):
            begin = rows.start + at * batch_size
            check(batch, np.arange(begin, min(begin + batch_size, rows.stop)))

"""Gradients of every kind are averaged over real ranks: dtypes, sparse rows, none at all."""

from __future__ import annotations

import numpy as np
import pytest

from spark_dl.testing import run_ranks

RANKS = 2
DTYPES = ["float64", "float32", "float16", "bfloat16"]
#: rows of the embedding table; a gradient of 4 rows a rank is less, one of 40 is more
VOCABULARY = 50


def gradients(rank, *, sparse_rows=4):
    """What a rank would get from its tape: the same shapes and dtypes on all ranks."""
    import tensorflow as tf

    rng = np.random.default_rng(rank)
    dense = [tf.constant(rng.normal(size=(3, 2)), dtype) for dtype in DTYPES]
    indices = rng.integers(0, VOCABULARY, sparse_rows)
    rows = tf.constant(rng.normal(size=(sparse_rows, 3)))
    slices = tf.IndexedSlices(rows, tf.constant(indices), tf.constant([VOCABULARY, 3], tf.int64))
    return [*dense[:2], None, slices, *dense[2:], tf.constant(float(rank), tf.float64)]


def as_dense(tensor):
    import tensorflow as tf

    return None if tensor is None else tf.cast(tf.convert_to_tensor(tensor), tf.float64).numpy()


def average(_, context):
    import tensorflow as tf

    from spark_dl.training import collective

    ranks = collective.form_collective(context.rank, context.world_size, cores=1)
    traces = []
    report = {}

    def as_from_a_tape(tensors, rows=None):
        """The table's shape is a constant then, and the rows of a ragged batch are not known."""
        tensors, slices = list(tensors), tensors[3]
        values = tf.ensure_shape(slices.values, [rows, 3])
        tensors[3] = tf.IndexedSlices(values, slices.indices, tf.constant([VOCABULARY, 3]))
        return tensors

    def mean(tensors):
        traces.append(1)
        return ranks.mean(as_from_a_tape(tensors, tensors[3].values.shape[0]))

    def run(name, tensors, function):
        means = function(tensors)
        kinds = [type(m).__name__ if isinstance(m, tf.IndexedSlices) else "" for m in means]
        values = [None if m is None else as_dense(m).tolist() for m in means]
        report[name] = {"values": values, "kinds": kinds}

    for rows in (4, 40):
        run(f"rows-{rows}", gradients(context.rank, sparse_rows=rows), tf.function(mean))
    run("eager", gradients(context.rank), ranks.mean)

    def of_any_length(tensors):
        dynamic = tf.reshape(tensors[3].values, [-1, tf.constant(3) + 0 * tf.size(tensors[0])])
        slices = tf.IndexedSlices(dynamic, tensors[3].indices, tensors[3].dense_shape)
        return ranks.mean(as_from_a_tape([*tensors[:3], slices, *tensors[4:]]))

    ragged = tf.function(of_any_length, reduce_retracing=True)
    run("ragged-few", gradients(context.rank, sparse_rows=3 + context.rank), ragged)
    run("ragged-many", gradients(context.rank, sparse_rows=40 + context.rank), ragged)

    traces.clear()
    steady = tf.function(mean)
    for _ in range(5):
        steady(gradients(context.rank))
    report["traces"] = len(traces)

    before = collective.plan_buckets
    collective.plan_buckets = lambda pieces: before(pieces, limit_bytes=8)
    run("tiny buckets", gradients(context.rank), tf.function(mean))
    return report


@pytest.fixture(scope="module")
def averaged():
    return run_ranks(average, None, world_size=RANKS)


@pytest.mark.parametrize(
    ("case", "rows", "kind"),
    [
        ("rows-4", lambda rank: 4, "IndexedSlices"),
        ("rows-40", lambda rank: 40, ""),
        ("eager", lambda rank: 4, ""),
        ("ragged-few", lambda rank: 3 + rank, "IndexedSlices"),
        ("ragged-many", lambda rank: 40 + rank, "IndexedSlices"),
        ("tiny buckets", lambda rank: 4, "IndexedSlices"),
    ],
)
def test_the_mean_is_that_of_all_ranks(averaged, case, rows, kind):
    given = [gradients(rank, sparse_rows=rows(rank)) for rank in range(RANKS)]
    for report in averaged:
        found = report[case]
        assert found["kinds"][3] == kind
        for index, tensors in enumerate(zip(*given, strict=True)):
            if tensors[0] is None:
                assert found["values"][index] is None
                continue
            expected = np.mean([as_dense(tensor) for tensor in tensors], axis=0)
            tolerance = 1e-2 if tensors[0].dtype.size == 2 else 1e-6
            if tensors[0].dtype.name == "float64":
                tolerance = 1e-12
            np.testing.assert_allclose(
                found["values"][index], expected, rtol=tolerance, atol=tolerance
            )


def test_steps_do_not_trace_again(averaged):
    assert [report["traces"] for report in averaged] == [1] * RANKS

"""Which gradients travel together; pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spark_dl.training.buckets import Piece, plan_buckets, stays_sparse

PIECES = st.lists(
    st.builds(
        Piece,
        dtype=st.sampled_from(["float16", "float32", "float64"]),
        size_bytes=st.none() | st.integers(0, 100),
    )
)


@given(PIECES, st.integers(1, 300))
def test_every_tensor_is_in_one_bucket_of_its_dtype(pieces, limit):
    buckets = plan_buckets(pieces, limit_bytes=limit)
    assert sorted(index for bucket in buckets for index in bucket) == list(range(len(pieces)))
    for bucket in buckets:
        assert len({pieces[index].dtype for index in bucket}) == 1
        assert list(bucket) == sorted(bucket, reverse=True)
        # full with its last tensor, and not before
        assert sum(pieces[index].size_bytes or 0 for index in bucket[:-1]) < limit


@given(PIECES, st.integers(1, 300))
def test_buckets_leave_in_the_order_in_which_a_backward_pass_fills_them(pieces, limit):
    ready = [min(bucket) for bucket in plan_buckets(pieces, limit_bytes=limit)]
    assert ready == sorted(ready, reverse=True)


def test_a_small_model_is_one_bucket_a_dtype():
    pieces = [Piece("float32", 400), Piece("float16", 2), Piece("float32", None)]
    assert plan_buckets(pieces) == [(1,), (2, 0)]


def test_rows_stay_sparse_while_they_are_less_than_the_table():
    assert stays_sparse(rows=8, row_bytes=8, vocabulary=17)
    assert not stays_sparse(rows=8, row_bytes=8, vocabulary=16)

"""Gradients of embeddings: the rows that a step has touched, not the whole table.

Keras' optimizers take a row that a batch holds twice for two rows, so that Adam and clipping by
norm would learn otherwise than from the same gradient as a dense tensor. So rows are summed first,
whatever the number of ranks: what a gradient means does not depend on how it travels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import tensorflow as tf

from spark_dl.training.buckets import stays_sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Gradient", "Ranks", "mean_slices", "summed"]

#: What a tape gives for a variable: a `tf.Tensor`, a `tf.IndexedSlices`, or `None` without one.
Gradient = Any


class Ranks(Protocol):
    """What the reduction of sparse gradients needs of a collective."""

    world_size: int

    def gather(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the rows of all ranks, in order of rank."""

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum over the ranks."""

    def mean(self, tensors: Sequence[Gradient]) -> list[Gradient]:
        """Return the means over the ranks."""


def summed(slices: tf.IndexedSlices) -> tf.IndexedSlices:
    """Return the same gradient with each row once.

    Args:
        slices: values ``[rows, …]``, indices ``[rows]``.
    """
    indices, places = tf.unique(slices.indices)
    values = tf.math.unsorted_segment_sum(slices.values, places, tf.size(indices))
    return tf.IndexedSlices(values, indices, slices.dense_shape)


def mean_slices(slices: tf.IndexedSlices, ranks: Ranks) -> tf.IndexedSlices | None:
    """Return the mean over the ranks, made by gathering rows; `None` where dense is less.

    Args:
        slices: this rank's gradient; ranks may differ in their number of rows.
        ranks: the collective.

    Returns:
        the rows of all ranks. `None`: to be reduced as a dense tensor, on all ranks.
    """
    shape = None if slices.dense_shape is None else tf.get_static_value(slices.dense_shape)
    if shape is None or tf.executing_eagerly():  # TensorFlow gathers inside of functions only
        return None
    row_bytes = math.prod(shape[1:].tolist()) * slices.dtype.size
    vocabulary = int(shape[0])
    rows = slices.values.shape[0]
    if rows is None:
        return _mean_of_any_length(slices, ranks, row_bytes=row_bytes, vocabulary=vocabulary)
    if stays_sparse(rows=rows * ranks.world_size, row_bytes=row_bytes, vocabulary=vocabulary):
        return _gathered(slices, ranks)
    return None


def _gathered(slices: tf.IndexedSlices, ranks: Ranks) -> tf.IndexedSlices:
    values, indices = ranks.gather([slices.values, slices.indices])
    divided = values / tf.cast(ranks.world_size, values.dtype)
    return tf.IndexedSlices(divided, indices, slices.dense_shape)


def _mean_of_any_length(
    slices: tf.IndexedSlices, ranks: Ranks, *, row_bytes: int, vocabulary: int
) -> tf.IndexedSlices:
    """Decide in the step: rows of variable length are known there only."""

    def sparse() -> tuple[tf.Tensor, tf.Tensor]:
        gathered = _gathered(slices, ranks)
        return gathered.values, gathered.indices

    def dense() -> tuple[tf.Tensor, tf.Tensor]:
        (mean,) = ranks.mean([tf.convert_to_tensor(slices)])
        return mean, tf.range(vocabulary, dtype=slices.indices.dtype)

    rows = ranks.sum(tf.size(slices.indices, out_type=tf.int64))
    is_less = stays_sparse(rows=rows, row_bytes=row_bytes, vocabulary=vocabulary)
    values, indices = tf.cond(is_less, sparse, dense)
    return tf.IndexedSlices(values, indices, slices.dense_shape)

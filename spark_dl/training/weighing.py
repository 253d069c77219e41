"""Class weights: some labels' rows count more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from spark_dl.errors import ConfigError
from spark_dl.training.data import as_it_stands

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spark_dl.schema import FeatureSpec

__all__ = ["weigh_classes"]


def weigh_classes(
    dataset: tf.data.Dataset, class_weight: Mapping[int, float] | None, spec: FeatureSpec
) -> tf.data.Dataset:
    """Multiply the rows' weights by those of their classes.

    A step's loss is still divided by the number of its rows, as Keras does, so that the mean over
    workers is that of one.

    Args:
        dataset: batches ``(features, label)`` or ``(features, label, weight)``; the label is a
            class's number ``[batch]``, or one-hot ``[batch, classes]``.
        class_weight: factor by class; classes that are not named weigh 1. `None` changes nothing.
        spec: the dataset's columns.

    Raises:
        ConfigError: the dataset has no label.
    """
    if not class_weight:
        return dataset
    if spec.label is None:
        msg = (
            "training.class_weight: the dataset has no label; prepare it with one, or leave it out"
        )
        raise ConfigError(msg)
    is_one_hot = len(spec.label.shape) == 1 and spec.label.shape != (1,)
    factors = np.ones(max(class_weight) + 2, np.float32)  # the last one: of all further classes
    factors[list(class_weight)] = list(class_weight.values())
    others = len(factors) - 1

    def weigh(features: Any, label: tf.Tensor, *weights: tf.Tensor) -> tuple[Any, ...]:  # noqa: ANN401 - a tensor or a dict of them
        numbers = tf.argmax(label, -1) if is_one_hot else tf.reshape(label, [-1])
        classes = tf.cast(numbers, tf.int64)
        classes = tf.where((classes >= 0) & (classes < others), classes, others)
        factor = tf.gather(tf.constant(factors), classes)
        return features, label, tf.cast(weights[0], factor.dtype) * factor if weights else factor

    return dataset.map(as_it_stands(weigh))

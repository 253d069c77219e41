"""From a model's output to Spark ML's raw predictions, probabilities and prediction.

Column expressions: the JVM computes them, no row crosses to Python once more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import Column

__all__ = ["predicted", "probabilities", "raw_predictions"]


def raw_predictions(output: Column, *, is_scalar: bool, is_logits: bool) -> Column:
    """Return one number a class, array<double>: larger is more likely.

    Args:
        output: what the model gave: a number a class; or one number, that of class 1.
        is_scalar: whether it is one number.
        is_logits: whether it is a logit rather than a probability.
    """
    if not is_scalar:
        return output.cast("array<double>")
    positive = output.cast("double")
    negative = -positive if is_logits else 1 - positive
    return sf.array(negative, positive)


def probabilities(raw: Column, *, is_scalar: bool, is_logits: bool) -> Column:
    """Return the probability of each class, array<double>.

    Args:
        raw: what `raw_predictions` made.
        is_scalar: whether the model gave one number.
        is_logits: whether that was a logit.
    """
    if not is_logits:
        return raw
    if is_scalar:  # the sigmoid of both margins
        return sf.transform(raw, lambda value: 1 / (1 + sf.exp(-value)))

    def softmax(exponentials: Column) -> Column:
        total = sf.aggregate(exponentials, sf.lit(0.0), lambda sum_, value: sum_ + value)
        return _let(total, lambda sum_: sf.transform(exponentials, lambda value: value / sum_))

    def shifted(values: Column) -> Column:
        return _let(
            sf.array_max(values),
            lambda top: _let(sf.transform(values, lambda value: sf.exp(value - top)), softmax),
        )

    return _let(raw, shifted)


def predicted(probability: Column, thresholds: Sequence[float] | None) -> Column:
    """Return the predicted class, double: that of the largest p/t, of equals the first.

    Args:
        probability: of each class, array<double>.
        thresholds: t of each class, as Spark ML means it; at most one is 0. `None` for none.
    """

    def best(scores: Column) -> Column:
        return (sf.array_position(scores, sf.array_max(scores)) - 1).cast("double")

    if thresholds is None:
        return _let(probability, best)
    scaled = [_scaled(sf.get(probability, sf.lit(i)), t) for i, t in enumerate(thresholds)]
    return _let(sf.array(*scaled), best)


def _scaled(probability: Column, threshold: float) -> Column:
    if threshold > 0:
        return probability / sf.lit(threshold)
    # a class of threshold 0 wins whenever it is possible at all
    return sf.when(probability > 0, sf.lit(math.inf)).otherwise(sf.lit(-1.0))


def _let(value: Column, body: Callable[[Column], Column]) -> Column:
    """Return an expression of `value` that computes it once, however often `body` names it."""
    return sf.element_at(sf.transform(sf.array(value), body), 1)

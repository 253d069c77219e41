"""Exact metrics over all ranks.

Every Keras metric is a function of variables that are sums over rows (means, confusion counts,
AUC's buckets). So the variables are summed over the ranks in float64 and the metric is computed
from the sums: the result is that of one process over all rows, whatever the number of ranks.
Padding with rows of weight 0 would not do: compiled ``metrics=`` ignore weights.

A user's own metric that is no such sum is refused (`spark_dl.metric_sums`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from spark_dl.errors import ConfigError
from spark_dl.metric_sums import unlike_a_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras
    import tensorflow as tf

    from spark_dl.training.collective import Collective

__all__ = ["check_reducible", "evaluate", "reduced_metrics"]

_NOT_DEFINED: Final = (
    "its value over several workers is not defined; use a metric built on sums (such as "
    "keras.metrics.Mean)"
)


def check_reducible(model: keras.Model, rows: tf.data.Dataset) -> None:
    """Refuse metrics whose variables are not sums over rows; a user's own are reset after it.

    Args:
        model: a compiled model whose metrics have been built.
        rows: a few batches. A user's own metric is tried on them, unless what the model computes of
            them is random.

    Raises:
        ConfigError: naming metric and variable.
    """
    reason = unlike_a_sum(model, lambda times: model.evaluate(rows.repeat(times), verbose=0))
    if reason is not None:
        msg = f"{reason}: {_NOT_DEFINED}"
        raise ConfigError(msg)


def reduced_metrics(model: keras.Model, collective: Collective) -> dict[str, float]:
    """Sum the metrics' variables over the ranks and return the metrics; the model keeps the sums.

    Args:
        model: a compiled model whose metrics have been built.
        collective: of this rank.
    """
    variables = model.metrics_variables
    sums = collective.sum_arrays([np.asarray(variable.numpy()) for variable in variables])
    for variable, total in zip(variables, sums, strict=True):
        variable.assign(total)
    return _as_floats(model.get_metrics_result())


def _as_floats(result: dict[str, Any]) -> dict[str, float]:
    return {name: float(np.asarray(value)) for name, value in result.items()}


def evaluate(
    model: keras.Model,
    mine: tf.data.Dataset | None,
    probe: tf.data.Dataset,
    collective: Collective,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """Evaluate a split over all ranks; every row counts exactly once.

    Args:
        model: a compiled model.
        mine: this rank's rows; `None` when it has none.
        probe: one batch of any rows; it builds the metrics' variables on a rank without rows.
        collective: of this rank.
        callbacks: told of each batch.

    Returns:
        the metrics, ``loss`` among them, equal on all ranks.
    """
    model.evaluate(probe if mine is None else mine, callbacks=list(callbacks), verbose=0)
    if mine is None:
        model.reset_metrics()
    return reduced_metrics(model, collective)

"""Exact metrics over all ranks.

Every Keras metric is a function of variables that are sums over rows (means, confusion counts,
AUC's buckets). So the variables are summed over the ranks in float64 and the metric is computed
from the sums: the result is that of one process over all rows, whatever the number of ranks.
Padding with rows of weight 0 would not do: compiled ``metrics=`` ignore weights.

Whether a user's own metric is such a sum, its variables do not say (Keras' default is "sum"), so it
is tried: the same rows twice must give twice the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import keras
    import numpy.typing as npt
    import tensorflow as tf

    from spark_dl.training.collective import Collective

__all__ = ["check_reducible", "evaluate", "reduced_metrics"]

_NOT_DEFINED: Final = (
    "its value over several workers is not defined; use a metric built on sums (such as "
    "keras.metrics.Mean)"
)


def check_reducible(model: keras.Model, rows: tf.data.Dataset) -> None:
    """Refuse metrics whose variables are not sums over rows; all metrics are reset after it.

    Args:
        model: a compiled model whose metrics have been built.
        rows: a few batches. A user's own metric is tried on them, unless what the model computes of
            them is random.

    Raises:
        ConfigError: naming metric and variable.
    """
    for variable in model.metrics_variables:
        if variable.aggregation != "sum":
            msg = (
                f"metric variable {variable.path!r} is aggregated by {variable.aggregation!r}, "
                f"not by sum: {_NOT_DEFINED}"
            )
            raise ConfigError(msg)
    if own := [metric for metric in _leaves(model.metrics) if not _is_of_keras(metric)]:
        _try_twice(model, own, rows)
        model.reset_metrics()


def _leaves(metrics: Iterable[keras.metrics.Metric]) -> Iterator[keras.metrics.Metric]:
    """Return the metrics, and instead of those of `compile` what they hold."""
    for metric in metrics:
        held = getattr(metric, "metrics", None)
        yield from [metric] if held is None else _leaves(held)


def _is_of_keras(metric: keras.metrics.Metric) -> bool:
    """Whether Keras' own code, which sums, makes the metric's state."""
    methods = (type(metric).update_state, type(metric).reset_state)
    return all(method.__module__.partition(".")[0] == "keras" for method in methods)


def _try_twice(
    model: keras.Model, metrics: Sequence[keras.metrics.Metric], rows: tf.data.Dataset
) -> None:
    variables = [(metric.name, variable) for metric in metrics for variable in metric.variables]

    def after(some: tf.data.Dataset) -> list[npt.NDArray[np.float64]]:
        model.evaluate(some, verbose=0)
        return [np.asarray(variable.numpy(), np.float64) for _, variable in variables]

    once, twice, again = after(rows), after(rows.repeat(2)), after(rows)
    if not all(map(_is_same, once, again)):
        return
    for (name, variable), single, double in zip(variables, once, twice, strict=True):
        if not _is_same(2 * single, double):
            at = np.unravel_index(np.argmax(~_same(2 * single, double)), single.shape)
            msg = (
                f"metric {name!r}: its variable {variable.path!r} is no sum over rows: after the "
                f"same rows twice it holds {double[at]:g}, expected {2 * single[at]:g}, for it "
                f"holds {single[at]:g} after them once: {_NOT_DEFINED}"
            )
            raise ConfigError(msg)


def _same(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return np.isclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


def _is_same(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> bool:
    return bool(_same(a, b).all())


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

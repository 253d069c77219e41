"""Executor side: whether a Keras model's metrics are sums over rows, so that workers may add them.

Of Keras' own every one is. Whether a user's own metric is such a sum, its variables do not say
(Keras' default is "sum"), so it is tried: without rows it must hold 0, and the same rows twice must
give twice the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt

__all__ = ["FEW_ROWS", "unlike_a_sum"]

#: On so many rows a user's own metrics are tried: a maximum may be 0 on one.
FEW_ROWS: Final = 8


def unlike_a_sum(model: Any, feed: Callable[[int], object]) -> str | None:  # noqa: ANN401 - Keras'
    """Return which metric variable is no sum over rows, and why; `None` where all are.

    Where what the model computes is random, its user's own metrics are not tried on rows.

    Args:
        model: a compiled Keras model whose metrics have been built; they are reset after it.
        feed: has the model evaluate a few rows, so many times over, in equal batches; it resets the
            metrics first, as `keras.Model.evaluate` does. Called only for a user's own metrics.
    """
    for variable in model.metrics_variables:
        if variable.aggregation != "sum":
            return (
                f"metric variable {variable.path!r} is aggregated by {variable.aggregation!r}, "
                "not by sum"
            )
    own = [
        (metric.name, variable)
        for metric in _leaves(model.metrics)
        if not _is_of_keras(metric)
        for variable in metric.variables
    ]
    if not own:
        return None
    model.reset_metrics()
    found = _without_rows(own) or _twice(own, feed)
    model.reset_metrics()
    return found


def _leaves(metrics: Iterable[Any]) -> Iterator[Any]:
    """Return the metrics, and instead of those of `compile` what they hold."""
    for metric in metrics:
        held = getattr(metric, "metrics", None)
        yield from [metric] if held is None else _leaves(held)


def _is_of_keras(metric: object) -> bool:
    """Whether Keras' own code, which sums, makes the metric's state."""
    methods = [getattr(type(metric), name) for name in ("update_state", "reset_state")]
    return all(method.__module__.partition(".")[0] == "keras" for method in methods)


def _values(own: list[tuple[str, Any]]) -> list[npt.NDArray[np.float64]]:
    return [np.asarray(variable.numpy(), np.float64) for _, variable in own]


def _without_rows(own: list[tuple[str, Any]]) -> str | None:
    for (name, variable), value in zip(own, _values(own), strict=True):
        if np.any(value):
            start = value.flat[np.flatnonzero(value)[0]]
            return (
                f"metric {name!r}: its variable {variable.path!r} is no sum over rows: without any "
                f"it holds {start:g}, expected 0"
            )
    return None


def _twice(own: list[tuple[str, Any]], feed: Callable[[int], object]) -> str | None:
    def after(times: int) -> list[npt.NDArray[np.float64]]:
        feed(times)
        return _values(own)

    once, twice, again = after(1), after(2), after(1)
    if not all(map(_is_same, once, again)):
        return None
    for (name, variable), single, double in zip(own, once, twice, strict=True):
        if not _is_same(2 * single, double):
            at = np.unravel_index(np.argmax(~_same(2 * single, double)), single.shape)
            return (
                f"metric {name!r}: its variable {variable.path!r} is no sum over rows: after the "
                f"same rows twice it holds {double[at]:g}, expected {2 * single[at]:g}, for it "
                f"holds {single[at]:g} after them once"
            )
    return None


def _same(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return np.isclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


def _is_same(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> bool:
    return bool(_same(a, b).all())

"""The distributed optimizer: it averages gradients over the ranks, then does as the user's."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from spark_dl.training.sparse import summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from spark_dl.training.collective import Collective

__all__ = ["distributed"]


class _AverageGradients:
    """Mixed in before an optimizer's own class."""

    _spark_dl_collective: Collective

    def apply(self, grads: Sequence[tf.Tensor | None], trainable_variables: Any = None) -> Any:  # noqa: ANN401 - Keras' signature
        """Average the gradients over the ranks and apply them.

        Clipping, accumulation and loss scaling happen after the average, on values that are equal
        on all ranks; so every rank takes the same decision (such as skipping a step whose scaled
        gradients are not finite).
        """
        averaged = [
            summed(mean) if isinstance(mean, tf.IndexedSlices) else mean
            for mean in self._spark_dl_collective.mean(grads)
        ]
        return super().apply(averaged, trainable_variables)  # type: ignore[misc]  # mixed into an optimizer


def distributed(
    optimizer: keras.optimizers.Optimizer, collective: Collective
) -> keras.optimizers.Optimizer:
    """Return an optimizer that shares everything with `optimizer` but averages gradients first.

    It is to be set as `model.optimizer` only; the model's compile config keeps the user's own
    object, so that what is saved loads anywhere.

    Args:
        optimizer: the compiled model's optimizer, built or not.
        collective: of this rank.
    """
    twin = copy.copy(optimizer)
    kind = type(optimizer)
    members = {"_spark_dl_collective": collective, "__doc__": kind.__doc__}
    object.__setattr__(
        twin, "__class__", type(f"Distributed{kind.__name__}", (_AverageGradients, kind), members)
    )
    return twin

"""The learning rate's scale and warm-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from spark_dl.config import LearningRateConfig

__all__ = ["LearningRate"]

Logs = dict[str, Any] | None


class LearningRate(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped here
    """Sets the rate of each step of the warm-up, and leaves it alone from then on.

    So callbacks such as ReduceLROnPlateau find it as they left it. What the rate is depends on the
    step alone: a resumed run goes on as if it had never stopped.

    Args:
        config: scale and warm-up.
        model: compiled; its rate now is the one that is scaled.
        world_size: number of ranks.
        steps_per_epoch: steps of one epoch.

    Raises:
        ConfigError: the rate is a schedule, which has a course of its own.
    """

    def __init__(
        self,
        config: LearningRateConfig,
        model: keras.Model,
        *,
        world_size: int,
        steps_per_epoch: int,
    ) -> None:
        """Remember the rate that the model was compiled with."""
        super().__init__()
        self._config = config
        self._world_size = world_size
        self._steps = steps_per_epoch
        self._epoch = 0
        self._base = float(np.asarray(model.optimizer.learning_rate))
        try:
            model.optimizer.learning_rate = self._base
        except TypeError as error:
            msg = (
                "training.learning_rate: the model was compiled with a learning rate schedule, "
                "which decides by itself; leave the section out, or compile the model with a number"
            )
            raise ConfigError(msg) from error

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - Keras' signature
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Set the rate, while the run warms up and at its end."""
        step = self._epoch * self._steps + batch
        if step <= self._config.warmup_steps:
            self.model.optimizer.learning_rate = self._config.rate(
                self._base, world_size=self._world_size, step=step
            )

"""Validation: of all rows of a split, over all ranks, at an epoch's end or between two steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from spark_dl.training.metrics import evaluate
from spark_dl.training.state import averaged_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tensorflow as tf

    from spark_dl.config import ValidationConfig
    from spark_dl.training.collective import Collective
    from spark_dl.training.events import RunLog

__all__ = ["StepValidation", "Validation"]

Logs = dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The rows that this rank evaluates, and when.

    Attributes:
        mine: its own rows, `None` when it has none.
        probe: one batch of any rows of the split.
        collective: of this rank.
        when: after which epochs and steps.
        callbacks: told of each batch.
    """

    mine: tf.data.Dataset | None
    probe: tf.data.Dataset
    collective: Collective
    when: ValidationConfig
    callbacks: Sequence[keras.callbacks.Callback] = ()

    def run(self, model: keras.Model) -> dict[str, float]:
        """Return the split's metrics over all ranks; the model's metrics hold them afterwards.

        Every rank evaluates the mean of all ranks' moving statistics and goes on with its own.
        """
        with averaged_state(model, self.collective):
            return evaluate(model, self.mine, self.probe, self.collective, callbacks=self.callbacks)


class StepValidation(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped here
    """Validates in the middle of an epoch; the epoch's own metrics go on as if nothing had been.

    Args:
        validation: what to evaluate, and when.
        steps_per_epoch: steps of one epoch.
        log: the chief's.
    """

    def __init__(self, validation: Validation, steps_per_epoch: int, log: RunLog | None) -> None:
        """Remember the parts."""
        super().__init__()
        self._validation = validation
        self._steps = steps_per_epoch
        self._log = log
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - Keras' signature
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Validate, when it is time to and the epoch's end does not do so anyway."""
        step = self._epoch * self._steps + batch + 1
        when = self._validation.when
        comes_anyway = batch + 1 == self._steps and when.ends_epoch(self._epoch)
        if not when.follows_step(step) or comes_anyway:
            return
        variables = self.model.metrics_variables
        own = [variable.numpy() for variable in variables]
        values = self._validation.run(self.model)
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
        if self._log is not None:
            self._log.write("validation", values, epoch=self._epoch, step=step, scope="step")

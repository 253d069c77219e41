"""Keras' `fit` from any step of a run to its end, as if it had never stopped.

An epoch that a checkpoint cut in two is finished by a `fit` of its own; a second one does the
epochs after it. To the callbacks it is one training: they see one beginning, one end, and the
numbers that steps and epochs have in the whole run.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import tensorflow as tf

    from spark_dl.training.resume import Start

__all__ = ["fit_from"]

Logs = dict[str, Any] | None


class _OneTraining(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped here
    """Callbacks that two calls of `fit` share; one callback, so that a model may add its own.

    Attributes:
        first_step: step of its epoch that the next `fit` begins with.
        is_last: whether no other `fit` follows.
        metrics: values that the metrics have at that step; empty at an epoch's beginning.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], steps_per_epoch: int) -> None:
        """Hold begin and end back until they are true."""
        super().__init__()
        self._callbacks = callbacks
        self._steps = steps_per_epoch
        self._has_begun = False
        self.first_step = 0
        self.is_last = True
        self.metrics: Sequence[Any] = ()

    def set_model(self, model: keras.Model) -> None:
        """Tell every callback."""
        super().set_model(model)
        for callback in self._callbacks:
            callback.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        """Tell every callback; an epoch has all its steps, also where this `fit` has fewer."""
        super().set_params({**params, "steps": self._steps})
        for callback in self._callbacks:
            callback.set_params(self.params)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Begin once."""
        if not self._has_begun:
            self._has_begun = True
            for callback in self._callbacks:
                callback.on_train_begin(logs)

    def on_train_end(self, logs: Logs = None) -> None:
        """End once."""
        if self.is_last or self.model.stop_training:
            for callback in self._callbacks:
                callback.on_train_end(logs)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Put the metrics of an epoch's first part back: `fit` has just reset them."""
        for variable, value in zip(self.model.metrics_variables, self.metrics, strict=False):
            variable.assign(value)
        self.metrics = ()
        for callback in self._callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Hand the epoch's figures from callback to callback."""
        for callback in self._callbacks:
            callback.on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Tell the number of the step in its epoch."""
        for callback in self._callbacks:
            callback.on_train_batch_begin(batch + self.first_step, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Tell the number of the step in its epoch."""
        for callback in self._callbacks:
            callback.on_train_batch_end(batch + self.first_step, logs)


def fit_from(
    model: keras.Model,
    batches: Callable[[int, int], tf.data.Dataset],
    callbacks: Sequence[keras.callbacks.Callback],
    *,
    start: Start,
    epochs: int,
    steps_per_epoch: int,
) -> None:
    """Train from a step of an epoch to the last epoch's end, or until a callback stops it.

    Args:
        model: compiled and built; in the middle of an epoch with the metrics of its first part.
        batches: ``batches(epoch, step)`` returns the batches from there to the run's end.
        callbacks: what happens between the steps.
        start: where to begin.
        epochs: number of the last epoch, counted from 1.
        steps_per_epoch: steps of one epoch.
    """
    epoch, step = (epochs, 0) if start.is_stopped else (start.epoch, start.step_in_epoch)
    together = _OneTraining(callbacks, steps_per_epoch)
    if step and epoch < epochs:
        together.first_step = step
        together.is_last = epoch + 1 == epochs
        together.metrics = [variable.numpy() for variable in model.metrics_variables]
        with contextlib.nullcontext() if together.is_last else _no_final_values(model):
            _fit(model, batches(epoch, step), together, (epoch, epoch + 1), steps_per_epoch - step)
        if model.stop_training or together.is_last:
            return
        together.first_step, together.is_last = 0, True
        epoch += 1
    if epoch < epochs:
        _fit(model, batches(epoch, 0), together, (epoch, epochs), steps_per_epoch)
    else:
        _end(model, together)


def _end(model: keras.Model, together: _OneTraining) -> None:
    """Do what the end of a `fit` does, for a run whose last step was done by an earlier try."""
    together.set_model(model)
    together.set_params({})
    together.on_train_begin()
    model.optimizer.finalize_variable_values(model.trainable_weights)
    together.on_train_end()


def _fit(
    model: keras.Model,
    batches: tf.data.Dataset,
    together: _OneTraining,
    epochs: tuple[int, int],
    steps: int,
) -> None:
    model.fit(
        batches,
        initial_epoch=epochs[0],
        epochs=epochs[1],
        # Keras must never meet the end of the dataset: it would run a step past it
        steps_per_epoch=steps,
        shuffle=False,  # the assignment has shuffled
        callbacks=[together],
        verbose=0,
    )


@contextlib.contextmanager
def _no_final_values(model: keras.Model) -> Iterator[None]:
    """Keep the end of a `fit` from replacing weights by their moving averages (`use_ema`)."""
    optimizer = model.optimizer
    object.__setattr__(optimizer, "finalize_variable_values", lambda _: None)
    try:
        yield
    finally:
        object.__delattr__(optimizer, "finalize_variable_values")

"""What TensorBoard may show besides curves: the weights' histograms, a profile of some steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from spark_dl.training.events import RunLog

__all__ = ["Histograms", "Profile"]

Logs = dict[str, Any] | None


class Histograms(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped here
    """Writes a histogram of each weight.

    Args:
        every_epochs: epochs between two.
        steps_per_epoch: steps of one epoch.
        log: where they go.
    """

    def __init__(self, every_epochs: int, steps_per_epoch: int, log: RunLog) -> None:
        """Remember the parts."""
        super().__init__()
        self._every_epochs = every_epochs
        self._steps = steps_per_epoch
        self._log = log

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - Keras' signature
        """Write them, when it is time to."""
        if (epoch + 1) % self._every_epochs == 0:
            self._log.write_histograms(self.model, step=(epoch + 1) * self._steps)


class Profile(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Has TensorFlow write a profile of some steps of the chief.

    Args:
        steps: first and last one, counted from 1 over the run.
        steps_per_epoch: steps of one epoch.
        folder: where TensorBoard finds it.
    """

    def __init__(self, steps: tuple[int, int], steps_per_epoch: int, folder: str) -> None:
        """Remember the parts."""
        super().__init__()
        self._first, self._last = steps
        self._steps = steps_per_epoch
        self._folder = folder
        self._epoch = 0
        self._is_running = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - Keras' signature
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Start before the first of the steps."""
        if self._epoch * self._steps + batch + 1 == self._first:
            tf.profiler.experimental.start(self._folder)
            self._is_running = True

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Write after the last of the steps."""
        if self._epoch * self._steps + batch + 1 >= self._last:
            self._stop()

    def on_train_end(self, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Write what there is of a run that ends before the last of the steps."""
        self._stop()

    def _stop(self) -> None:
        if self._is_running:
            self._is_running = False
            tf.profiler.experimental.stop()

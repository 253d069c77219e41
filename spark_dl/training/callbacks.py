"""What happens between Keras' steps and epochs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np

from spark_dl.training.checkpoint import Position
from spark_dl.training.metrics import reduced_metrics
from spark_dl.training.saving import Clock, is_due

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spark_dl.training.callback_state import CallbackStates
    from spark_dl.training.collective import Collective
    from spark_dl.training.events import RunLog
    from spark_dl.training.saving import Saver
    from spark_dl.training.task import TrainTask
    from spark_dl.training.validation import Validation

__all__ = ["Checkpoints", "EpochEnd", "StepReports"]

_REPORT_INTERVAL_S: Final = 0.25
Logs = dict[str, Any] | None


class EpochEnd(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped here
    """Reduces the epoch's metrics, validates and logs; before other callbacks.

    Callbacks that come later see reduced values, equal on all ranks, so that they decide alike.

    Attributes:
        history: reduced metrics, one value an epoch.
    """

    def __init__(
        self,
        collective: Collective,
        steps_per_epoch: int,
        validation: Validation | None,
        log: RunLog | None,
    ) -> None:
        """Remember the parts; `log` is the chief's."""
        super().__init__()
        self._collective = collective
        self._steps = steps_per_epoch
        self._validation = validation
        self._log = log
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Replace this rank's figures by those of all."""
        step = (epoch + 1) * self._steps
        train = reduced_metrics(self.model, self._collective)
        self._write("train", train, epoch, step)
        merged = dict(train)
        if self._validation is not None and self._validation.when.ends_epoch(epoch):
            values = self._validation.run(self.model)
            self._write("validation", values, epoch, step)
            merged |= {f"val_{name}": value for name, value in values.items()}
        for name, value in merged.items():
            self.history.setdefault(name, []).append(value)
        if logs is not None:
            logs.update(merged)

    def _write(self, split: str, metrics: dict[str, float], epoch: int, step: int) -> None:
        if self._log is not None:
            self._log.write(split, metrics, epoch=epoch, step=step, scope="epoch")


class Checkpoints(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Saves the run's state when it is due; after all other callbacks.

    Args:
        task: what is trained.
        collective: of this rank.
        steps_per_epoch: steps of one epoch.
        saver: writes checkpoints.
        history: reduced metrics of the complete epochs, as `EpochEnd` fills them.
        states: of the user's callbacks.
    """

    def __init__(
        self,
        task: TrainTask,
        collective: Collective,
        steps_per_epoch: int,
        saver: Saver,
        history: Mapping[str, Sequence[float]],
        states: CallbackStates,
    ) -> None:
        """Remember the parts."""
        super().__init__()
        self._task = task
        self._collective = collective
        self._steps = steps_per_epoch
        self._saver = saver
        self._history = history
        self._clock = Clock(task.checkpoint.every_s, collective)
        self._states = states
        self._epoch = 0

    def on_train_begin(self, logs: Logs = None) -> None:  # noqa: ARG002 - Keras' signature
        """Give the callbacks, which have just begun, what they remember."""
        self._states.begin()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - Keras' signature
        """Note the epoch."""
        self._epoch = epoch
        if self._clock.is_stopped:
            self._clock.start(epoch * self._steps)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Save in the middle of an epoch."""
        self._saver.check()
        if batch + 1 == self._steps:
            return  # the epoch's end, with validation and all that changes the state, is at hand
        step = self._epoch * self._steps + batch + 1
        by_distance = is_due(self._task.checkpoint, epoch=self._epoch, step=step, ends_epoch=False)
        if self._clock.is_due(step) or by_distance:
            self._save(self._epoch, step)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Save at an epoch's end."""
        step = (epoch + 1) * self._steps
        is_last = epoch + 1 == self._task.epochs or self.model.stop_training
        by_distance = is_due(self._task.checkpoint, epoch=epoch + 1, step=step, ends_epoch=True)
        if self._clock.is_due(step) or by_distance or is_last:
            self._save(epoch + 1, step)

    def _save(self, epoch: int, step: int) -> None:
        position = Position(
            epoch=epoch,
            step=step,
            steps_per_epoch=self._steps,
            world_size=self._collective.world_size,
            seed=self._task.seed,
            global_batch_size=self._task.global_batch_size,
            fingerprint=self._task.fingerprint,
            is_stopped=self.model.stop_training,
        )
        self._saver.save(self.model, position, self._history, self._states.snapshot())
        self._clock.start(step)


class StepReports(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Tells the driver how far the chief is, and logs every n-th step.

    Reading a metric waits for the step, so it is done a few times a second at most.
    """

    def __init__(
        self,
        task: TrainTask,
        steps_per_epoch: int,
        log: RunLog,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        """Remember where reports go."""
        super().__init__()
        self._task = task
        self._steps = steps_per_epoch
        self._log = log
        self._report = report
        self._epoch = 0
        self._reported = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - Keras' signature
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Report and log, when it is time to."""
        number = self._epoch * self._steps + batch + 1
        is_logged = number % self._task.log_every_steps == 0
        is_last = batch + 1 == self._steps
        if not (is_logged or is_last or time.monotonic() - self._reported >= _REPORT_INTERVAL_S):
            return
        metrics = {name: float(np.asarray(value)) for name, value in (logs or {}).items()}
        if is_logged:
            self._log.write("train", metrics, epoch=self._epoch, step=number, scope="step")
        self._reported = time.monotonic()
        self._report(
            {
                "kind": "progress",
                "epoch": self._epoch,
                "epochs": self._task.epochs,
                "step": batch + 1,
                "steps_per_epoch": self._steps,
                "loss": metrics.get("loss"),
                "rows": (batch + 1) * self._task.global_batch_size,
                "metrics": metrics,
                "time": time.time(),
            }
        )

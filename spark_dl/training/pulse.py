"""The sign of life of a training: what a rank does, and which step it has done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import keras

from spark_dl.background import Background

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Pulse"]

_REPORT_INTERVAL_S: Final = 0.25
Logs = dict[str, Any] | None


class Pulse(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped here
    """Tells the driver what this rank does and how far it is.

    It reports from a thread of its own, a few times a second while there is news: so the driver
    knows the very step at which a rank stands still, and steps wait for nobody.

    Args:
        steps_per_epoch: steps of one epoch.
        report: takes the events for the driver.
    """

    def __init__(self, steps_per_epoch: int, report: Callable[[dict[str, Any]], None]) -> None:
        """Remember where reports go."""
        super().__init__()
        self._steps = steps_per_epoch
        self._report = report
        self._epoch = 0
        self._news: dict[str, Any] = {"doing": "starting"}
        self._told: dict[str, Any] = {}
        self._beats = Background(self._beat, every_s=_REPORT_INTERVAL_S, name="spark_dl-pulse")

    def __enter__(self) -> Self:
        """Begin to report."""
        self._beats.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._beats.close()

    def _beat(self) -> None:
        news = self._news
        if news is not self._told:
            self._told = news
            self._report({"kind": "pulse", **news})

    def tell(self, doing: str) -> None:
        """Say what this rank is about to do."""
        self._news = {"doing": doing}

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - Keras' signature
        """Note the epoch."""
        self._epoch = epoch
        self.tell("training")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Say what comes between two epochs."""
        self.tell("ending the epoch")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Note the step."""
        self._news = {"doing": "training", "run_step": self._epoch * self._steps + batch + 1}

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Note that the validation goes on."""
        self.tell("validating")

"""The sign of life of a training: what a rank does, and which step it has done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

import keras

from spark_dl.background import Background

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Pace", "Pulse"]

_REPORT_INTERVAL_S: Final = 0.25
#: Weight of the latest step in the mean of steps.
_SMOOTHING: Final = 0.1
Logs = dict[str, Any] | None


class Pace:
    """How long a rank's own part of a step takes: without its wait for slower ones.

    Args:
        summed_s: tells the seconds that went into sums over the ranks; `None`: not known.

    Attributes:
        own_s: seconds a step, a moving mean; `None` before the first, or where sums are not known.
    """

    def __init__(self, summed_s: Callable[[], float | None]) -> None:
        """Measure nothing yet."""
        self._summed_s = summed_s
        self._mark: tuple[float, float] | None = None
        self.own_s: float | None = None

    def begin(self, now: float) -> None:
        """Note the beginning of a step, which the end of the one before is unless `pause` came."""
        if self._mark is None:
            self._note(now)

    def end(self, now: float) -> None:
        """Note the end of a step, which is the beginning of the next."""
        before = self._mark
        self._note(now)
        if before is None or self._mark is None:
            return
        own = max(now - before[0] - (self._mark[1] - before[1]), 0.0)
        self.own_s = own if self.own_s is None else self.own_s + _SMOOTHING * (own - self.own_s)

    def pause(self) -> None:
        """Count nothing until the next step begins."""
        self._mark = None

    def _note(self, now: float) -> None:
        summed = self._summed_s()
        self._mark = None if summed is None else (now, summed)


class Pulse(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is untyped here
    """Tells the driver what this rank does and how far it is.

    It reports from a thread of its own, a few times a second while there is news: so the driver
    knows the very step at which a rank stands still, and steps wait for nobody. Each step is noted
    where it outlives this process, should that die before the next report.

    Args:
        steps_per_epoch: steps of one epoch.
        report: takes the events for the driver.
        pace: measures this rank's steps.
    """

    def __init__(
        self, steps_per_epoch: int, report: Callable[[dict[str, Any]], None], pace: Pace
    ) -> None:
        """Remember where reports go."""
        super().__init__()
        self._steps = steps_per_epoch
        self._report = report
        self._pace = pace
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
        self._pace.pause()
        self.tell("ending the epoch")

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Note when the step begins."""
        self._pace.begin(time.monotonic())

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Note the step."""
        self._pace.end(time.monotonic())
        step = self._epoch * self._steps + batch + 1
        self._report({"kind": "step", "run_step": step})
        self._news = {"doing": "training", "run_step": step, "own_s": self._pace.own_s}

    def on_test_begin(self, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Count no validation as a part of a step."""
        self._pace.pause()

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: ARG002 - as above
        """Note that the validation goes on."""
        self.tell("validating")

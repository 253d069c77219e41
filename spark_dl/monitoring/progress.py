"""How far a training is: a live line where somebody watches, a few log lines where nobody does."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["Progress", "ProgressEvent", "Snapshot", "Throughput", "format_duration"]

logger = logging.getLogger(__name__)

_WINDOW_S: Final = 10.0
#: Two marks make a speed.
_FEWEST_MARKS: Final = 2


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """How far a rank is.

    Attributes:
        rank: the rank that says so.
        epoch: current epoch, from 0.
        epochs: number of epochs.
        step: steps done in this epoch, from 1.
        steps_per_epoch: steps of an epoch.
        loss: running loss of this epoch, `None` when not known.
        rows: rows that all ranks have seen in this epoch.
        metrics: the other metrics, those of the validation too once an epoch is over.
        time: when it was so, in seconds of the rank's clock.
    """

    rank: int
    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    loss: float | None = None
    rows: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    @property
    def total_steps(self) -> int:
        """Steps done since the first epoch began."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def epoch_ended(self) -> bool:
        """Whether this was the epoch's last step."""
        return self.step >= self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """An event and what follows from those before it.

    Attributes:
        event: the latest event.
        rows_per_s: rows per second lately, `None` until two events have come.
        eta_s: seconds until the last step at the speed of late, `None` until two events have come.
    """

    event: ProgressEvent
    rows_per_s: float | None = None
    eta_s: float | None = None

    def facts(self) -> str:
        """Return loss, metrics, speed and time left in one line."""
        event = self.event
        parts = [] if event.loss is None else [f"loss {event.loss:.4g}"]
        parts += [f"{name} {value:.4g}" for name, value in event.metrics.items() if name != "loss"]
        if self.rows_per_s is not None:
            parts.append(f"{self.rows_per_s:,.0f} rows/s")
        if self.eta_s is not None and event.total_steps < event.epochs * event.steps_per_epoch:
            parts.append(f"ETA {format_duration(self.eta_s)}")
        return ", ".join(parts)

    def line(self) -> str:
        """Return everything in one line, for a log."""
        event = self.event
        where = f"epoch {event.epoch + 1}/{event.epochs}"
        if not event.epoch_ended:
            where += f" step {event.step}/{event.steps_per_epoch}"
        return f"{where}: {self.facts()}"


class Throughput:
    """Speed and time left from the events of one rank.

    Only the times in the events count: relays that hold events back and send several at once change
    nothing.

    Args:
        window_s: how far back "lately" reaches, in seconds.
    """

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        """Start without events."""
        self._window_s = window_s
        self._marks: deque[tuple[float, int, int]] = deque()
        self._rows_before_epoch = 0
        self._last: ProgressEvent | None = None

    def add(self, event: ProgressEvent) -> Snapshot:
        """Take an event in.

        An event from before the latest one means that the training restarted: what was measured
        until then is dropped.
        """
        last = self._last
        if last is not None and event.total_steps < last.total_steps:
            self._marks.clear()
            self._rows_before_epoch = 0
        elif last is not None and event.epoch > last.epoch:
            self._rows_before_epoch += last.rows
        self._last = event
        marks = self._marks
        marks.append((event.time, event.total_steps, self._rows_before_epoch + event.rows))
        # the newest mark that is older than the window stays, so that slow steps are measured too
        while len(marks) > _FEWEST_MARKS and event.time - marks[1][0] >= self._window_s:
            marks.popleft()
        start, steps, rows = marks[0]
        passed = event.time - start
        done = event.total_steps - steps
        if passed <= 0 or done <= 0:
            return Snapshot(event=event)
        left = event.epochs * event.steps_per_epoch - event.total_steps
        return Snapshot(
            event=event,
            rows_per_s=(marks[-1][2] - rows) / passed,
            eta_s=left * passed / done,
        )


class Progress:
    """Shows how far the chief is: a bar where somebody watches, else a log line now and then.

    Args:
        live: whether to draw a bar; `None` draws it on a terminal and in a notebook.
        log_every_s: without a bar, seconds between log lines within an epoch; each epoch's end is
            always logged.
        stream: where the bar is drawn; `None` is stderr.
        clock: the clock for `log_every_s`.

    Example:
        >>> with Progress(live=False) as progress:
        ...     progress.update(ProgressEvent(rank=0, epoch=0, epochs=1, step=1, steps_per_epoch=2))
    """

    def __init__(
        self,
        *,
        live: bool | None = None,
        log_every_s: float = 30.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Draw nothing yet."""
        self._stream = sys.stderr if stream is None else stream
        self._live = _is_watched(self._stream) if live is None else live
        self._log_every_s = log_every_s
        self._clock = clock
        self._logged = clock()
        self._lock = threading.Lock()
        self._throughput = Throughput()
        self._bar: Any = None
        self._closed = False

    def update(self, event: ProgressEvent) -> None:
        """Show an event; from any thread.

        Only the chief's are shown: the other ranks are as far as it is.
        """
        if event.rank != 0:
            return
        with self._lock:
            if self._closed:
                return
            snapshot = self._throughput.add(event)
            if self._live:
                self._draw(snapshot)
            elif event.epoch_ended or self._clock() - self._logged >= self._log_every_s:
                self._logged = self._clock()
                logger.info("%s", snapshot.line())

    def announce(self, text: str) -> None:
        """Say something once: above the bar where somebody watches, else in the log."""
        if self._live:
            from tqdm.auto import tqdm

            tqdm.write(text, file=self._stream)
        else:
            logger.info("%s", text)

    def close(self) -> None:
        """Leave the line as it is and go to the next; later events are not shown."""
        with self._lock:
            self._closed = True
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the line."""
        self.close()

    def _draw(self, snapshot: Snapshot) -> None:
        event = snapshot.event
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=event.epochs * event.steps_per_epoch,
                file=self._stream,
                unit="step",
                # speed and time left are the ranks', not those of the events' arrival
                bar_format="{desc} {bar:24} {n_fmt}/{total_fmt}{postfix}",
                dynamic_ncols=True,
            )
        bar = self._bar
        bar.n = event.total_steps
        bar.set_description_str(f"epoch {event.epoch + 1}/{event.epochs}", refresh=False)
        bar.set_postfix_str(snapshot.facts(), refresh=False)
        bar.refresh()


def _is_watched(stream: TextIO) -> bool:
    if stream.isatty():
        return True
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None


def format_duration(seconds: float) -> str:
    """Return a duration as people write it.

    Example:
        >>> format_duration(9.4), format_duration(312), format_duration(7325)
        ('9 s', '5:12 min', '2:02 h')
    """
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"

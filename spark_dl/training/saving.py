"""When and how a run saves its state: beside the training, never half."""

from __future__ import annotations

import math
import secrets
import threading
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from spark_dl.training.state import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import keras

    from spark_dl.config import CheckpointConfig
    from spark_dl.training.checkpoint import Arrays, CheckpointStore, Position
    from spark_dl.training.collective import Collective

__all__ = ["Clock", "Saver", "is_due"]

_TOKENS: Final = 2**31


def is_due(config: CheckpointConfig, *, epoch: int, step: int, ends_epoch: bool) -> bool:
    """Whether the distance in epochs or steps makes a checkpoint due; pure.

    Args:
        config: the distances.
        epoch: epochs that are complete.
        step: steps since the start of the run.
        ends_epoch: whether the step is the last of its epoch.
    """
    by_step = config.every_steps is not None and step % config.every_steps == 0
    by_epoch = ends_epoch and config.every_epochs is not None and epoch % config.every_epochs == 0
    return by_step or by_epoch


class Clock:
    """Decides by time, on all ranks alike: the chief's clock counts.

    The ranks talk about it seldom: at the step by which, at the chief's pace, half of the time
    that is left will have passed.

    Args:
        every_s: seconds between two checkpoints; `None`: never due.
        collective: of this rank.
    """

    def __init__(self, every_s: float | None, collective: Collective) -> None:
        """Start counting."""
        self._every_s = every_s
        self._collective = collective
        self._since = (0, time.monotonic())
        self._look_at: int | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether it has not been started yet."""
        return self._look_at is None

    def start(self, step: int) -> None:
        """Count from now: a run starts, or a checkpoint was taken."""
        self._since = (step, time.monotonic())
        self._look_at = step + 1

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due at this step; all ranks ask at every step."""
        if self._every_s is None or self._look_at is None or step < self._look_at:
            return False
        first, since = self._since
        elapsed = time.monotonic() - since
        left = self._every_s - elapsed
        wait = next_look(left_s=left, step_s=elapsed / max(step - first, 1))
        (agreed,) = self._collective.broadcast([np.array([wait], np.int64)])
        self._look_at = step + int(agreed[0])
        return self._look_at == step


def next_look(*, left_s: float, step_s: float) -> int:
    """Return in how many steps to look at the clock again; 0 when the time is over. Pure."""
    if left_s <= 0:
        return 0
    return max(int(left_s / max(step_s, 1e-6) / 2), 1)


def _nothing() -> None:
    """Do nothing."""


class Saver:
    """Writes checkpoints in a thread of its own, one at a time.

    Args:
        store: the run's checkpoints.
        collective: of this rank.
    """

    def __init__(self, store: CheckpointStore, collective: Collective) -> None:
        """Agree on a token for this try's files; all ranks call it."""
        self._store = store
        self._collective = collective
        #: Called on the chief before a checkpoint counts: what was logged up to its step must be
        #: in the run's folder by then, for a run that resumes from it.
        self.before_commit: Callable[[], None] = _nothing
        mine = np.array([secrets.randbelow(_TOKENS)], np.int64)
        (agreed,) = collective.broadcast([mine])
        self._token = f"{int(agreed[0]):08x}"
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(
        self,
        model: keras.Model,
        position: Position,
        history: Mapping[str, Sequence[float]],
        remembered: Arrays,
    ) -> None:
        """Copy the model's state and start to write it; every rank calls it at the same step.

        Args:
            model: in training.
            position: where it is.
            history: metrics of the complete epochs.
            remembered: what the callbacks remember.

        Raises:
            StorageError: the checkpoint before this one could not be written.
        """
        state = snapshot(model, shared=self._collective.rank == 0)
        self.write(position, state.shared, {**state.own, **remembered}, history)

    def write(
        self,
        position: Position,
        shared: Arrays,
        own: Arrays,
        history: Mapping[str, Sequence[float]],
    ) -> None:
        """Start to write a checkpoint; every rank calls it at the same step.

        Args:
            position: where training is.
            shared: what all ranks share; only the chief's is written.
            own: what is this rank's own; nobody changes these arrays any more.
            history: metrics of the complete epochs.

        Raises:
            StorageError: the checkpoint before this one could not be written.
        """
        self.wait()
        rank = self._collective.rank
        past = {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in history.items()
        }
        own_name = self._rank_part(rank)

        def write() -> None:
            try:
                checksums = {own_name: self._store.write_part(position.step, own_name, own)}
                if rank:
                    return
                model_name = f"model.{self._token}.npz"
                checksums[model_name] = self._store.write_part(position.step, model_name, shared)
                ranks = tuple(self._rank_part(r) for r in range(self._collective.world_size))
                self.before_commit()
                self._store.commit(position, model_name, ranks, checksums=checksums, history=past)
            except Exception as error:  # noqa: BLE001 - raised in the thread that trains
                self._error = error

        self._thread = threading.Thread(target=write, name="spark_dl-checkpoint", daemon=True)
        self._thread.start()

    def _rank_part(self, rank: int) -> str:
        return f"rank-{rank:05d}.{self._token}.npz"

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did.

        Raises:
            StorageError: a checkpoint could not be written.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until nothing is being written; the store's own deadlines end it.

        Raises:
            StorageError: the checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

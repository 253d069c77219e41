"""Checkpoints as files: each rank writes its part, the chief adds what all share and commits.

``checkpoints/step-00000120/`` holds ``model.TOKEN.npz`` (weights and optimizer, equal on all
ranks), ``rank-00000.TOKEN.npz`` (what differs: statistics that no gradient trains, seeds of random
layers, metric variables) and ``checkpoint.json``, which is written last and names every part with
its checksum. A folder without it is no checkpoint, so no rename is needed; the token tells the
parts of one try of a run from those that an earlier try left unfinished.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from spark_dl.errors import StorageError, TimeoutExpiredError
from spark_dl.storage import Storage, join

if TYPE_CHECKING:
    import numpy.typing as npt

    from spark_dl.config import CheckpointConfig
    from spark_dl.storage import RunPaths

__all__ = ["Arrays", "Checkpoint", "CheckpointStore", "Position"]

logger = logging.getLogger(__name__)

Arrays = dict[str, "npt.NDArray[np.generic]"]

_NAME: Final = re.compile(r"step-(\d{8,})")
_RECORD: Final = "checkpoint.json"
_LOOK_S: Final = 0.05
_LOOK_AT_MOST_S: Final = 1.0


class Position(BaseModel):
    """Where in a run a checkpoint was taken.

    Attributes:
        epoch: epochs that are complete.
        step: steps since the start of the run.
        steps_per_epoch: steps of one epoch.
        world_size: number of ranks that took it.
        seed: the run's seed.
        global_batch_size: rows of one step.
        fingerprint: the dataset's fingerprint.
        is_stopped: whether a callback ended training there.
    """

    model_config = ConfigDict(frozen=True)

    epoch: int
    step: int
    steps_per_epoch: int
    world_size: int
    seed: int
    global_batch_size: int
    fingerprint: str = ""
    is_stopped: bool = False

    @property
    def step_in_epoch(self) -> int:
        """Steps of the incomplete epoch that are done."""
        return self.step - self.epoch * self.steps_per_epoch


class Checkpoint(BaseModel):
    """The content of `checkpoint.json`.

    Attributes:
        position: where in the run it was taken.
        model: file of the shared part.
        ranks: file of each rank's own part, in order.
        checksums: of every part.
        history: reduced metrics of the complete epochs, `None` where one was not finite.
    """

    model_config = ConfigDict(frozen=True)

    position: Position
    model: str
    ranks: tuple[str, ...]
    checksums: dict[str, str]
    history: dict[str, list[float | None]] = Field(default_factory=dict)

    @field_validator("model", "ranks")
    @classmethod
    def _stays_inside(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        outside = [n for n in ([names] if isinstance(names, str) else names) if "/" in n]
        if outside:
            msg = f"part {outside[0]!r} is outside the checkpoint's folder"
            raise ValueError(msg)
        return names


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        paths: the run's paths.
        config: how many are kept, and how long parts may take.
    """

    def __init__(self, paths: RunPaths, config: CheckpointConfig) -> None:
        """Look at the run directory; nothing is written yet."""
        self.root = paths.checkpoints
        self._storage = Storage(self.root)
        self._config = config

    def _folder(self, step: int) -> str:
        return join(self.root, f"step-{step:08d}")

    def write_part(self, step: int, name: str, arrays: Arrays) -> str:
        """Write one part and return its checksum.

        Raises:
            StorageError: it cannot be written.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stubs confuse the arrays with allow_pickle
        data = buffer.getvalue()
        self._storage.write_atomic(join(self._folder(step), name), data)
        return _checksum(data)

    def commit(
        self,
        position: Position,
        model: str,
        ranks: tuple[str, ...],
        *,
        checksums: dict[str, str],
        history: dict[str, list[float | None]],
    ) -> None:
        """Wait for the parts of the other ranks, write the record and remove old checkpoints.

        Args:
            position: where in the run it was taken.
            model: file of the shared part.
            ranks: files of the ranks' own parts.
            checksums: of the parts that the caller has written itself.
            history: metrics of the complete epochs.

        Raises:
            TimeoutExpiredError: a part did not arrive.
        """
        folder = self._folder(position.step)
        others = [name for name in ranks if name not in checksums]
        self._await(folder, others)
        found = {name: _checksum(self._storage.read_bytes(join(folder, name))) for name in others}
        record = Checkpoint(
            position=position,
            model=model,
            ranks=ranks,
            checksums=checksums | found,
            history=history,
        )
        self._storage.write_atomic(join(folder, _RECORD), record.model_dump_json(indent=2))
        self._prune(position.step)

    def _await(self, folder: str, names: list[str]) -> None:
        pause = threading.Event()
        pause_s, deadline = _LOOK_S, time.monotonic() + self._config.timeout_s
        while missing := [name for name in names if not self._storage.exists(join(folder, name))]:
            if time.monotonic() > deadline:
                what = (
                    f"{', '.join(missing)} in {folder}: the folder of runs must be shared by all "
                    "executors"
                )
                raise TimeoutExpiredError.waiting_for(
                    what, self._config.timeout_s, "training.checkpoint.timeout_s"
                )
            pause.wait(pause_s)
            pause_s = min(2 * pause_s, _LOOK_AT_MOST_S)

    def _prune(self, newest: int) -> None:
        """Remove what need not be kept, and the remains of what was never finished."""
        complete = self.steps()
        kept = {*complete[-self._config.keep :], newest}
        best = self._config.best
        if best is not None:
            kept |= self._best(complete, best)
        for step in complete:
            if step not in kept:
                self._storage.remove(self._folder(step))

    def _best(self, steps: list[int], metric: str) -> set[int]:
        values = {}
        for step in steps:
            record = self.record(step)
            at_epoch_end = record.position.step_in_epoch == 0
            value = (record.history.get(metric) or [None])[-1]
            if at_epoch_end and value is not None:
                values[step] = value
        if not values:
            return set()
        choose = min if self._config.least_is_best else max
        return {choose(values, key=lambda step: values[step])}

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        matches = (_NAME.fullmatch(name) for name in self._storage.list(self.root))
        found = sorted(int(match[1]) for match in matches if match)
        return [step for step in found if self._storage.exists(join(self._folder(step), _RECORD))]

    def record(self, step: int) -> Checkpoint:
        """Return a checkpoint's record.

        Raises:
            StorageError: it is missing or damaged.
        """
        path = join(self._folder(step), _RECORD)
        try:
            return Checkpoint.model_validate_json(self._storage.read_bytes(path))
        except ValidationError as error:
            msg = f"{path} is damaged: {error}"
            raise StorageError(msg) from error

    def read_part(self, record: Checkpoint, name: str) -> Arrays:
        """Return the arrays of one part.

        Raises:
            StorageError: it is missing or damaged.
        """
        data = self._checked(record, name)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _checked(self, record: Checkpoint, name: str) -> bytes:
        path = join(self._folder(record.position.step), name)
        data = self._storage.read_bytes(path)
        if (found := _checksum(data)) != record.checksums[name]:
            msg = (
                f"checkpoint part {path} is damaged: its checksum is {found}, the checkpoint says "
                f"{record.checksums[name]}"
            )
            raise StorageError(msg)
        return data

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint whose parts are all there and whole; `None` without one.

        A damaged one is passed over, with a line in the log: the one before it costs some steps,
        no more.
        """
        for step in reversed(self.steps()):
            try:
                record = self.record(step)
                for name in (record.model, *record.ranks):
                    self._checked(record, name)
            except StorageError as error:
                logger.warning("checkpoint %s is passed over: %s", self._folder(step), error)
                continue
            return record
        return None

    def forget_after(self, step: int) -> None:
        """Remove everything that was saved after a step, complete or not.

        Args:
            step: the step that a run resumes from; -1 removes all.
        """
        complete = set(self.steps())
        for name in self._storage.list(self.root):
            match = _NAME.fullmatch(name)
            if match and (int(match[1]) > step or int(match[1]) not in complete):
                self._storage.remove(join(self.root, name))


def _checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"

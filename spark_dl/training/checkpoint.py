"""Checkpoints: each rank writes its part, the chief adds what all share and commits.

``checkpoints/step-00000120/`` holds ``model.npz`` (weights and optimizer, equal on all ranks),
``rank-00000.npz`` (what
differs: non-trainable variables, seeds of random layers, metric variables) and ``checkpoint.json``,
    with a checksum
of every part. A folder under its temporary name is never picked up.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from spark_dl.errors import StorageError
from spark_dl.storage import Storage, join

if TYPE_CHECKING:
    import keras
    import numpy.typing as npt

    from spark_dl.storage import RunPaths
    from spark_dl.training.collective import Collective

__all__ = ["Checkpoint", "CheckpointStore", "Position"]

_NAME: Final = re.compile(r"step-(\d{8,})")
Arrays = dict[str, "npt.NDArray[np.generic]"]


class Position(BaseModel):
    """Where in a run a checkpoint was taken.

    Attributes:
        epoch: epochs that are complete.
        step: steps since the start of the run.
        world_size: number of ranks that took it.
        seed: the run's seed.
        global_batch_size: rows of one step.
    """

    model_config = ConfigDict(frozen=True)

    epoch: int
    step: int
    world_size: int
    seed: int
    global_batch_size: int


class Checkpoint(BaseModel):
    """The content of `checkpoint.json`: position and checksums of the parts."""

    model_config = ConfigDict(frozen=True)

    position: Position
    parts: dict[str, str]


def _shared(model: keras.Model) -> Arrays:
    weights = {f"weights/{i}": np.asarray(v.numpy()) for i, v in enumerate(model.weights)}
    optimizer = {
        f"optimizer/{i}": np.asarray(v.numpy()) for i, v in enumerate(model.optimizer.variables)
    }
    return weights | optimizer


def _own(model: keras.Model) -> Arrays:
    state = {
        f"state/{i}": np.asarray(v.numpy()) for i, v in enumerate(model.non_trainable_variables)
    }
    seeds = {f"seed/{i}": np.asarray(v.numpy()) for i, v in enumerate(seed_states(model))}
    metrics = {f"metric/{i}": np.asarray(v.numpy()) for i, v in enumerate(model.metrics_variables)}
    return state | seeds | metrics


def seed_states(model: keras.Model) -> list[Any]:
    """Return the states of the model's random layers, which `model.weights` does not hold."""
    return [
        variable for variable in model.variables if variable.path.endswith("seed_generator_state")
    ]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        paths: the run's paths.
        collective: of this rank.
        keep: number of checkpoints that are kept.
    """

    def __init__(self, paths: RunPaths, collective: Collective, *, keep: int) -> None:
        """Look at the run directory; nothing is written yet."""
        self._root = paths.checkpoints
        self._storage = Storage(self._root)
        self._collective = collective
        self._keep = keep

    def _folder(self, step: int) -> str:
        return join(self._root, f"step-{step:08d}")

    def save(self, model: keras.Model, position: Position) -> None:
        """Write a checkpoint; every rank calls it.

        Raises:
            StorageError: it cannot be written; what was there before stays.
        """
        final = self._folder(position.step)
        temporary = f"{final}.tmp"
        rank = self._collective.rank
        self._write(join(temporary, _rank_part(rank)), _own(model))
        self._collective.barrier()
        if rank == 0:
            self._write(join(temporary, "model.npz"), _shared(model))
            names = [_rank_part(other) for other in range(self._collective.world_size)]
            parts = {
                name: _checksum(self._read_part(temporary, name)) for name in (*names, "model.npz")
            }
            record = Checkpoint(position=position, parts=parts)
            self._storage.write_atomic(
                join(temporary, "checkpoint.json"), record.model_dump_json(indent=2)
            )
            self._storage.commit(temporary, final)
            for step in self.steps()[: -self._keep]:
                self._storage.remove(self._folder(step))

    def _read_part(self, folder: str, name: str) -> bytes:
        try:
            return self._storage.read_bytes(join(folder, name))
        except StorageError as error:
            msg = (
                f"checkpoint part {join(folder, name)} is not visible to the chief: "
                "the folder of runs must be shared by all executors"
            )
            raise StorageError(msg) from error

    def _write(self, path: str, arrays: Arrays) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stubs confuse the arrays with allow_pickle
        self._storage.write_atomic(path, buffer.getvalue())

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        matches = (_NAME.fullmatch(name) for name in self._storage.list(self._root))
        return sorted(int(match[1]) for match in matches if match)

    def read(self, step: int) -> tuple[Checkpoint, dict[str, Arrays]]:
        """Return a checkpoint's record and the arrays of each part, by its file name.

        Raises:
            StorageError: a part is missing or damaged.
        """
        folder = self._folder(step)
        record = Checkpoint.model_validate_json(
            self._storage.read_bytes(join(folder, "checkpoint.json"))
        )
        parts = {}
        for name, checksum in record.parts.items():
            data = self._storage.read_bytes(join(folder, name))
            if _checksum(data) != checksum:
                msg = (
                    f"checkpoint part {join(folder, name)} is damaged: its checksum is not "
                    f"{checksum}"
                )
                raise StorageError(msg)
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                parts[name] = {key: arrays[key] for key in arrays.files}
        return record, parts


def _rank_part(rank: int) -> str:
    return f"rank-{rank:05d}.npz"


def _checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"

"""Going on where a run's newest checkpoint was taken."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spark_dl.errors import ConfigError
from spark_dl.storage import Storage
from spark_dl.training.rewind import rewind
from spark_dl.training.state import restore

if TYPE_CHECKING:
    import keras

    from spark_dl.training.checkpoint import Arrays, Checkpoint, CheckpointStore, Position
    from spark_dl.training.collective import Collective
    from spark_dl.training.task import TrainTask

__all__ = ["Found", "Start", "check_same_run", "find", "resume"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where training begins.

    Attributes:
        epoch: the epoch, from 0.
        step_in_epoch: the step in it, from 0.
        step: steps since the start of the run.
        history: metrics of the complete epochs.
        is_stopped: whether a callback has ended training there.
        own: this rank's own part of the checkpoint.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    is_stopped: bool = False
    own: Arrays = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint that was read.

    Attributes:
        record: what it is.
        shared: what all ranks share.
        parts: the ranks' own parts, in order; those that this rank does not need are empty.
    """

    record: Checkpoint
    shared: Arrays
    parts: list[Arrays]

    def own(self, collective: Collective) -> Arrays:
        """Return this rank's own part, the chief's where the number of ranks has changed."""
        return self.parts[collective.rank if len(self.parts) == collective.world_size else 0]

    @property
    def history(self) -> dict[str, list[float]]:
        """Metrics of the complete epochs."""
        return {
            name: [math.nan if value is None else value for value in values]
            for name, values in self.record.history.items()
        }


def find(
    task: TrainTask, store: CheckpointStore, collective: Collective, steps_per_epoch: int
) -> Found | None:
    """Return the newest whole checkpoint, if the run has one; all ranks call it.

    What was logged, saved or exported after it is removed first, so that nothing is there twice.

    Args:
        task: what to train.
        store: the run's checkpoints.
        collective: of this rank.
        steps_per_epoch: steps of one epoch.

    Raises:
        ConfigError: the checkpoint is of another seed, dataset or batch size.
    """
    newest = store.newest() if collective.rank == 0 else None
    mine = -1 if newest is None else newest.position.step
    if collective.rank == 0:
        store.forget_after(mine)
        rewind(task.paths, mine)
        # a try that was lost after its export: the run is not over before all ranks say so
        Storage(task.paths.root).remove(task.paths.model(task.version))
    # the ranks go on together, and none before the chief has cleaned up
    (agreed,) = collective.broadcast([np.array([mine], np.int64)])
    step = int(agreed[0])
    if step < 0:
        return None
    record = newest or store.record(step)
    check_same_run(task, record.position, steps_per_epoch)
    needed = _own_names(record, collective)
    if collective.rank == 0:
        _tell(task, record.position, collective.world_size)
    return Found(
        record=record,
        shared=store.read_part(record, record.model),
        parts=[store.read_part(record, name) if name in needed else {} for name in record.ranks],
    )


def resume(
    task: TrainTask,
    model: keras.Model,
    store: CheckpointStore,
    collective: Collective,
    steps_per_epoch: int,
) -> Start:
    """Give the model the state of the newest checkpoint, if the run has one; all ranks call it.

    Args:
        task: what to train.
        model: built, its optimizer and metrics too.
        store: the run's checkpoints.
        collective: of this rank.
        steps_per_epoch: steps of one epoch.

    Raises:
        ConfigError: the checkpoint is of another model, seed, dataset or batch size.
    """
    found = find(task, store, collective, steps_per_epoch)
    if found is None:
        return Start()
    restore(model, found.shared, found.parts, seed=task.seed, collective=collective)
    position = found.record.position
    return Start(
        epoch=position.epoch,
        step_in_epoch=position.step_in_epoch,
        step=position.step,
        is_stopped=position.is_stopped,
        own=found.own(collective),
        history=found.history,
    )


def _own_names(record: Checkpoint, collective: Collective) -> set[str]:
    """Return the ranks' parts that this rank needs: its own, or all when their number changed."""
    if len(record.ranks) == collective.world_size:
        return {record.ranks[collective.rank]}
    return set(record.ranks)


def check_same_run(task: TrainTask, position: Position, steps_per_epoch: int) -> None:
    """Check that a checkpoint belongs to what is to be trained; pure.

    Raises:
        ConfigError: naming what differs.
    """
    pairs = {
        "seed": (position.seed, task.seed),
        "global_batch_size": (position.global_batch_size, task.global_batch_size),
        "dataset fingerprint": (position.fingerprint, task.fingerprint),
        "steps of an epoch": (position.steps_per_epoch, steps_per_epoch),
    }
    changed = [f"{name} {old!r} → {new!r}" for name, (old, new) in pairs.items() if old != new]
    if changed:
        msg = (
            f"run {task.paths.run_id} has a checkpoint at step {position.step} that was trained "
            f"otherwise: {', '.join(changed)}; set it back to resume, or use a new run_id"
        )
        raise ConfigError(msg)


def _tell(task: TrainTask, position: Position, world_size: int) -> None:
    logger.info(
        "run %s resumes from its checkpoint at step %d (epoch %d)",
        task.paths.run_id,
        position.step,
        position.epoch + 1,
    )
    if position.world_size != world_size:
        logger.warning(
            "run %s was started by %d workers and goes on with %d: the rows of each step stay the "
            "same, but sums are rounded in another order and random layers draw anew",
            task.paths.run_id,
            position.world_size,
            world_size,
        )

"""What stands before the first step: rows, model, and the state to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spark_dl.metric_sums import FEW_ROWS
from spark_dl.shards import Manifest
from spark_dl.training.checkpoint import CheckpointStore
from spark_dl.training.data import evaluation_dataset, training_dataset
from spark_dl.training.epochs import EpochPlan
from spark_dl.training.export import takes_bare_input
from spark_dl.training.initial import load_initial
from spark_dl.training.inputs import check_inputs
from spark_dl.training.metrics import check_reducible
from spark_dl.training.model import build_model
from spark_dl.training.resume import resume
from spark_dl.training.rows import assign_rows, open_split
from spark_dl.training.saving import Saver
from spark_dl.training.state import equalise
from spark_dl.training.warmup import LearningRate
from spark_dl.training.weighing import weigh_classes

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from spark_dl.shards.assignment import Assignment
    from spark_dl.training.collective import Collective
    from spark_dl.training.data import ShardReader
    from spark_dl.training.resume import Start
    from spark_dl.training.task import TrainTask

__all__ = ["Setup", "probe", "set_up"]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One rank, ready to train.

    Attributes:
        task: what to train.
        collective: of this rank.
        manifest: the dataset's.
        model: compiled and built, with the state to begin with.
        bare: whether it takes its single input bare instead of in a dict.
        reader: the training split.
        assignment: which of its rows this rank meets.
        plan: how epochs lie over passes.
        start: where to begin.
        saver: writes checkpoints.
        rate: sets the learning rate; `None` where the model's own holds.
    """

    task: TrainTask
    collective: Collective
    manifest: Manifest
    model: keras.Model
    bare: bool
    reader: ShardReader
    assignment: Assignment
    plan: EpochPlan
    start: Start
    saver: Saver
    rate: LearningRate | None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.plan.steps_per_epoch

    def batches(self, epoch: int, step: int) -> tf.data.Dataset:
        """Return this rank's batches from a step of an epoch to the end of the run."""
        passes, within = self.plan.passes_from(epoch, step)
        dataset = training_dataset(
            self.reader,
            self.assignment,
            self.manifest.spec,
            epochs=passes,
            step=within,
            bare=self.bare,
        )
        return weigh_classes(dataset, self.task.class_weight, self.manifest.spec)


def set_up(task: TrainTask, collective: Collective) -> Setup:
    """Open the rows, build the model and give it its first state; all ranks call it.

    Args:
        task: what to train, the same on all ranks.
        collective: of this rank.

    Raises:
        ConfigError: the model, the checkpoint or a setting does not fit.
        ManifestError: there is no training split, or it is empty.
        ShardError: a shard is damaged or missing.
    """
    manifest = Manifest.read(task.dataset)
    assignment = assign_rows(task, manifest, collective)
    plan = EpochPlan(
        pass_steps=assignment.steps_per_epoch,
        steps_per_epoch=task.steps_per_epoch or assignment.steps_per_epoch,
        epochs=task.epochs,
    )
    model = build_model(task, manifest.spec, collective)
    bare = takes_bare_input(model, manifest.spec)
    check_inputs(model, manifest.spec, bare=bare)
    reader = open_split(task, manifest, task.train_split)
    _build(model, probe(reader, manifest, bare=bare))
    few = min(FEW_ROWS, manifest.totals[task.train_split])
    check_reducible(model, probe(reader, manifest, bare=bare, num_rows=few))
    rate = _rate(task, model, collective, plan)
    store = CheckpointStore(task.paths, task.checkpoint)
    if task.init_from and collective.rank == 0 and not store.steps():
        load_initial(model, task.init_from)  # the others get the chief's weights next
    equalise(model, task.seed, collective)
    return Setup(
        task=task,
        collective=collective,
        manifest=manifest,
        model=model,
        bare=bare,
        reader=reader,
        assignment=assignment,
        plan=plan,
        start=resume(task, model, store, collective, plan.steps_per_epoch),
        saver=Saver(store, collective),
        rate=rate,
    )


def probe(
    reader: ShardReader, manifest: Manifest, *, bare: bool, num_rows: int = 1
) -> tf.data.Dataset:
    """Return a split's first rows, a batch each.

    Args:
        reader: a split.
        manifest: the dataset's.
        bare: as for `spark_dl.training.data.training_dataset`.
        num_rows: how many.
    """
    return evaluation_dataset(reader, manifest.spec, range(num_rows), batch_size=1, bare=bare)


def _build(model: keras.Model, row: tf.data.Dataset) -> None:
    """Create all variables: Keras makes those of the metrics in the first step only."""
    model.evaluate(row, verbose=0)
    model.reset_metrics()
    model.optimizer.build(model.trainable_variables)


def _rate(
    task: TrainTask, model: keras.Model, collective: Collective, plan: EpochPlan
) -> LearningRate | None:
    if task.learning_rate.changes_nothing:
        return None
    return LearningRate(
        task.learning_rate,
        model,
        world_size=collective.world_size,
        steps_per_epoch=plan.steps_per_epoch,
    )

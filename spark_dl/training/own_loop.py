"""A user's own training loop: cluster, rows and records are ours, the steps are theirs."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Literal

import keras
import numpy as np
import tensorflow as tf

from spark_dl.errors import ConfigError
from spark_dl.shards import Manifest
from spark_dl.shards.assignment import evaluation_rows
from spark_dl.training.checkpoint import CheckpointStore, Position
from spark_dl.training.data import as_it_stands, evaluation_dataset, training_dataset
from spark_dl.training.events import RunLog
from spark_dl.training.export import takes_bare_input
from spark_dl.training.finish import export_trained
from spark_dl.training.model import resolve_function
from spark_dl.training.resume import find
from spark_dl.training.rows import assign_rows, open_split
from spark_dl.training.saving import Saver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from spark_dl.schema import FeatureSpec
    from spark_dl.storage import RunPaths
    from spark_dl.training.collective import Collective
    from spark_dl.training.task import TrainTask

__all__ = ["OwnCheckpoints", "OwnLoop", "run_own_loop"]

Arrays = dict[str, Any]


class OwnCheckpoints:
    """Checkpoints of a loop that keeps its own state, as named arrays.

    Args:
        task: what is trained.
        collective: of this rank.
        steps_per_epoch: steps of one pass over the training split.
    """

    def __init__(self, task: TrainTask, collective: Collective, steps_per_epoch: int) -> None:
        """Find the newest checkpoint; what was logged after it is removed."""
        self._task = task
        self._collective = collective
        self._steps = steps_per_epoch
        store = CheckpointStore(task.paths, task.checkpoint)
        self._found = find(task, store, collective, steps_per_epoch)
        self._saver = Saver(store, collective)
        self.history: dict[str, list[float]] = self._found.history if self._found else {}

    @property
    def step(self) -> int:
        """Steps that were done when the newest checkpoint was taken; 0 without one."""
        return self._found.record.position.step if self._found else 0

    def restore(self) -> Mapping[str, npt.NDArray[np.generic]] | None:
        """Return the arrays of the newest checkpoint, this rank's own among them.

        Returns:
            What `save` was given; `None` where the run has none.
        """
        if self._found is None:
            return None
        return {**self._found.shared, **self._found.own(self._collective)}

    def save(
        self,
        step: int,
        shared: Mapping[str, npt.ArrayLike],
        own: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        """Start to write a checkpoint; all ranks call it after the same step.

        Args:
            step: steps that are done since the start of the run.
            shared: what is equal on all ranks, by name; the chief's is written.
            own: what differs from rank to rank, by name.

        Raises:
            StorageError: the checkpoint before this one could not be written.
            ConfigError: a name is in both.
        """
        mine = {name: np.array(value) for name, value in (own or {}).items()}
        if twice := sorted(set(mine) & set(shared)):
            msg = f"checkpoint.save(): {', '.join(twice)} cannot be shared and a rank's own"
            raise ConfigError(msg)
        ours = {name: np.array(value) for name, value in shared.items()}
        position = Position(
            epoch=step // self._steps,
            step=step,
            steps_per_epoch=self._steps,
            world_size=self._collective.world_size,
            seed=self._task.seed,
            global_batch_size=self._task.global_batch_size,
            fingerprint=self._task.fingerprint,
        )
        self._saver.write(position, ours, mine, self.history)

    def save_with(self, log: RunLog) -> None:
        """Bring what was logged to the run's folder before each checkpoint counts."""
        self._saver.before_commit = log.save

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            StorageError: the checkpoint could not be written.
        """
        self._saver.wait()


#: Seconds between two signs that batches are taken.
_SIGN_S: Final = 1.0


class OwnLoop:
    """What a ``train_fn(ctx)`` gets: its place in the cluster, its rows, and where to report.

    Attributes:
        rank: this process's rank, 0 is the chief.
        world_size: number of ranks.
        seed: the run's seed.
        epochs: passes that the job asks for.
        params: the job's parameters.
        paths: the run's directory.
        spec: the dataset's columns.
        steps_per_epoch: steps of one pass over the split ``train``.
        checkpoint: the run's checkpoints.
    """

    def __init__(
        self,
        task: TrainTask,
        collective: Collective,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        """Open the dataset and find the newest checkpoint."""
        self._task = task
        self._collective = collective
        self._send = report
        self._log: RunLog | None = None
        self._signed = -_SIGN_S
        self._manifest = Manifest.read(task.dataset)
        self._assignment = assign_rows(task, self._manifest, collective)
        self.rank = collective.rank
        self.world_size = collective.world_size
        self.seed = task.seed
        self.epochs = task.epochs
        self.params: Mapping[str, Any] = task.params
        self.paths: RunPaths = task.paths
        self.spec: FeatureSpec = self._manifest.spec
        self.steps_per_epoch = self._assignment.steps_per_epoch
        self.checkpoint = OwnCheckpoints(task, collective, self.steps_per_epoch)

    @property
    def is_chief(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Keep the run's records open; only once the checkpoint's step has cut them back."""
        if not self.is_chief:
            yield
            return
        with RunLog(self.paths) as self._log:
            self.checkpoint.save_with(self._log)
            yield

    def dataset(self, split: str = "train", *, start_step: int = 0) -> tf.data.Dataset:
        """Return this rank's batches of a split.

        Args:
            split: ``train`` gives the batches of all epochs that are left, in their exact order;
                any other split its rows once, each on one rank only.
            start_step: steps of ``train`` that are done.

        Returns:
            A dataset of ``(features, label)`` or ``(features, label, weight)``: features are a dict
            by name, tensors ``[global_batch_size / world_size, …]``.

        Raises:
            ManifestError: there is no such split.
        """
        reader = open_split(self._task, self._manifest, split)
        if split == self._task.train_split:
            epoch, step = divmod(start_step, self.steps_per_epoch)
            epochs = range(epoch, self.epochs)
            batches = training_dataset(
                reader, self._assignment, self.spec, epochs=epochs, bare=False, step=step
            )
            return self._signing(batches)
        rows = evaluation_rows(self._manifest.totals[split], self.world_size, self.rank)
        size = max(self._task.global_batch_size // self.world_size, 1)
        return self._signing(
            evaluation_dataset(reader, self.spec, rows, batch_size=size, bare=False)
        )

    def _signing(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Have the driver know that this rank goes on, also where `report` is seldom called."""

        def sign() -> np.bool_:
            now = time.monotonic()
            if now - self._signed >= _SIGN_S:
                self._signed = now
                self._send({"kind": "pulse"})
            return np.True_

        def taken(*batch: Any) -> Any:  # noqa: ANN401 - as the dataset gives it
            tf.numpy_function(sign, [], tf.bool)
            return batch

        options = tf.data.Options()
        # a strategy takes these rows for those of all ranks, and would leave out half of them
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return batches.map(as_it_stands(taken)).with_options(options)

    def strategy(self) -> tf.distribute.Strategy:
        """Return the `MultiWorkerMirroredStrategy` of the cluster, for loops that are built on one.

        A worker alone gets the default strategy. Keras 3 cannot `fit` inside of it; tf_keras can.
        `dataset` gives a rank's own rows, so it is to be handed over by the strategy's
        `distribute_datasets_from_function`: of what is given as it is, TensorFlow cuts each batch
        in as many parts as there are ranks.
        """
        return self._collective.strategy()

    def all_reduce(
        self, tensors: Sequence[tf.Tensor], operation: Literal["mean", "sum"] = "mean"
    ) -> list[tf.Tensor]:
        """Return each tensor reduced over the ranks; all ranks call it, also in a `tf.function`.

        Args:
            tensors: shapes and dtypes must be the same on all ranks.
            operation: ``mean`` or ``sum``.
        """
        given = [tf.convert_to_tensor(tensor) for tensor in tensors]
        if operation == "sum" and any(tensor.dtype.is_integer for tensor in given):
            return [self._collective.sum(tensor) for tensor in given]  # a mean would be rounded
        means = self._collective.mean(given)
        if operation == "mean":
            return means
        return [mean * tf.cast(self.world_size, mean.dtype) for mean in means]

    def report(self, step: int, *, split: str = "train", **metrics: float) -> None:
        """Tell the driver how far this rank is; the chief's metrics are logged.

        Args:
            step: steps that are done since the start of the run.
            split: ``train`` or ``validation``: two curves in TensorBoard.
            metrics: values by name.
        """
        self._send({"kind": "step", "run_step": step})
        self._send({"kind": "pulse", "doing": "training", "run_step": step})
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        if self._log is None:
            return
        epoch = max(step - 1, 0) // self.steps_per_epoch
        self._log.write(split, values, epoch=epoch, step=step, scope="epoch")
        prefix = "" if split == "train" else "val_"
        for name, value in values.items():
            self.checkpoint.history.setdefault(prefix + name, []).append(value)
        done = step - epoch * self.steps_per_epoch
        self._send(
            {
                "kind": "progress",
                "epoch": epoch,
                "epochs": self.epochs,
                "step": done,
                "steps_per_epoch": self.steps_per_epoch,
                "loss": values.get("loss"),
                "rows": done * self._task.global_batch_size,
                "metrics": values,
                "time": time.time(),
            }
        )


def run_own_loop(
    task: TrainTask, collective: Collective, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run a user's ``train_fn(ctx)`` on this rank.

    Args:
        task: what to train, the same on all ranks.
        collective: of this rank.
        report: takes the events for the driver.

    Returns:
        as `spark_dl.training.worker.fit`; ``model_path`` only where `train_fn` returned a model.

    Raises:
        ConfigError: `train_fn` returned something else than a Keras model or nothing.
    """
    train_fn = resolve_function(task.train_fn or "", setting="train_fn")
    ctx = OwnLoop(task, collective, report)
    first = ctx.checkpoint.step
    with ctx.logging():
        model = train_fn(ctx)
        ctx.checkpoint.wait()
    if model is not None and not isinstance(model, keras.Model):
        msg = f"train_fn returned {_name(type(model))}, expected a keras.Model or None"
        raise ConfigError(msg)
    history = ctx.checkpoint.history
    result: dict[str, Any] = {"history": history, "resumed_from": first, "model_path": ""}
    if model is not None:
        model(_example(ctx, bare=takes_bare_input(model, ctx.spec)))
        result["model_path"] = export_trained(model, ctx.spec, task, collective)
    return result


def _name(kind: type) -> str:
    """Return a class's name, with its module: tf_keras has a Model too."""
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def _example(ctx: OwnLoop, *, bare: bool) -> Any:  # noqa: ANN401 - a tensor, or a dict of them
    """Return the features of one row: a model that was never called has no weights to save."""
    batch = next(iter(ctx.dataset("train", start_step=(ctx.epochs - 1) * ctx.steps_per_epoch)))
    features = {name: tensor[:1] for name, tensor in batch[0].items()}
    return next(iter(features.values())) if bare else features

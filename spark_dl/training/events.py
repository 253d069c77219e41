"""What the chief writes while it trains: TensorBoard events and `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import keras
import tensorflow as tf

from spark_dl.storage import Storage, finite, is_local, join
from spark_dl.storage.upload import GrowingUpload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from spark_dl.storage import RunPaths
    from spark_dl.training.task import TrainTask

__all__ = ["RunLog", "hyperparameters"]

_FLUSH_MS = 1000


def hyperparameters(task: TrainTask) -> dict[str, bool | int | float | str]:
    """Return what one compares runs by: the plain ones of the model's parameters, and the job's."""
    plain = {
        name: value
        for name, value in task.params.items()
        if isinstance(value, bool | int | float | str)
    }
    own = {
        "global_batch_size": task.global_batch_size,
        "epochs": task.epochs,
        "seed": task.seed,
        "learning_rate.scale": task.learning_rate.scale,
    }
    return {**plain, **own}


class RunLog:
    """Writes TensorBoard events, a folder a split, and `metrics.jsonl`.

    Where the run's folder is not mounted, both are written on this host and uploaded every few
    seconds.

    Args:
        paths: the run's paths.
    """

    def __init__(self, paths: RunPaths) -> None:
        """Open the files."""
        self._upload: GrowingUpload | None = None
        self._resources = contextlib.ExitStack()
        local = paths if is_local(paths.root) else self._local_copy(paths)
        self._folder = local.events
        Storage(local.root).make_folder(local.root)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._metrics = open(local.metrics, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - closed by close()

    def _local_copy(self, paths: RunPaths) -> RunPaths:
        """Return a run directory on this host that is uploaded as it grows."""
        scratch = tempfile.TemporaryDirectory(prefix="spark-dl-log-")
        local = replace(paths, runs=self._resources.enter_context(scratch))
        os.mkdir(local.root)
        storage = Storage(paths.root)
        if storage.exists(paths.metrics):  # of the tries before: they are written on
            storage.download(paths.metrics, local.metrics)
        self._upload = self._resources.enter_context(GrowingUpload(local.root, paths.root))
        return local

    def save(self) -> None:
        """Bring everything that was logged so far to the run's folder.

        Raises:
            StorageError: it cannot be written.
        """
        if self._upload is not None:
            self._upload.update()

    def _writer(self, split: str) -> tf.summary.SummaryWriter:
        if split not in self._writers:
            self._writers[split] = tf.summary.create_file_writer(
                join(self._folder, split), flush_millis=_FLUSH_MS
            )
        return self._writers[split]

    def write(
        self, split: str, metrics: Mapping[str, float], *, epoch: int, step: int, scope: str
    ) -> None:
        """Write one record.

        Args:
            split: ``train`` or ``validation``.
            metrics: values by name.
            epoch: number of the epoch, from 0.
            step: steps since the start of the run.
            scope: ``step`` or ``epoch``; they are different curves.
        """
        record = {
            "time": time.time(),
            "epoch": epoch,
            "step": step,
            "split": split,
            "scope": scope,
            **finite(metrics),
        }
        self._metrics.write(json.dumps(record) + "\n")
        writer = self._writer(split)
        with writer.as_default(step):
            for name, value in metrics.items():
                tf.summary.scalar(f"{scope}/{name}", value)
        writer.flush()

    def write_graph(self, model: keras.Model) -> None:
        """Write the model's graph; models that are only built when called have none to show."""
        if not model.built or not getattr(model, "inputs", None):
            return
        # a Sequential that was never called as a layer has `inputs`, but no `input`
        inputs = getattr(model, "input", model.inputs[0])
        structure = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), inputs)
        call = tf.function(lambda x: model(x, training=False), autograph=False)
        with self._writer("train").as_default(0):
            tf.summary.graph(call.get_concrete_function(structure).graph.as_graph_def())
        self._writer("train").flush()

    @property
    def profiles(self) -> str:
        """Where profiles go, so that TensorBoard finds them."""
        return join(self._folder, "train")

    def write_job(self, task: TrainTask) -> None:
        """Write the job's config as a text and, where TensorBoard is installed, its parameters."""
        writer = self._writer("train")
        with writer.as_default(0):
            if task.board.job:
                tf.summary.text("job", f"```yaml\n{task.board.job}\n```")
            with contextlib.suppress(ImportError):
                from tensorboard.plugins.hparams import api

                api.hparams(hyperparameters(task))
        writer.flush()

    def write_histograms(self, model: keras.Model, *, step: int) -> None:
        """Write a histogram of each weight.

        Args:
            model: a built model.
            step: steps since the start of the run.
        """
        writer = self._writer("train")
        with writer.as_default(step):
            for variable in model.weights:
                tf.summary.histogram(f"weights/{variable.path}", variable.numpy())
        writer.flush()

    def close(self) -> None:
        """Flush and close.

        Raises:
            StorageError: what is left cannot be brought to the run's folder.
        """
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files; an error that is on its way is not hidden by another one."""
        for writer in self._writers.values():
            writer.close()
        self._metrics.close()
        self._resources.__exit__(kind, error, trace)

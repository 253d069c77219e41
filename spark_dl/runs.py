"""Runs: what a training leaves behind, and the record of any job in its `status.json`."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from spark_dl.errors import ConfigError, StorageError, is_cancel
from spark_dl.storage import JobState, JobStatus, RunPaths, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Record", "Run", "finished_run", "read_status", "recorded"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training run.

    Attributes:
        run_id: its name.
        path: its directory.
        history: metrics over all workers, one value an epoch: ``loss``, ``val_loss`` and so on;
            NaN where a value was not finite.
        metrics: the last value of each.
        model_path: folder of the exported version; empty where a `train_fn` returned no model.
        tensorboard_url: where TensorBoard was, or still is if it was kept; `None` without it.
    """

    run_id: str
    path: str
    history: Mapping[str, Sequence[float]]
    metrics: Mapping[str, float]
    model_path: str
    tensorboard_url: str | None = None


class Record:
    """The `status.json` of a job that runs.

    Args:
        path: path of the file.
        status: what it says at first.
    """

    def __init__(self, path: str, status: JobStatus) -> None:
        """Write the file."""
        self._path = path
        self.status = status
        #: Whether the file is still this job's to write.
        self.is_owner: Callable[[], bool] = lambda: True
        self._write()

    def _write(self) -> None:
        if self.is_owner():
            self.status.write(self._path)

    def running(self) -> None:
        """Say that the job has started its work."""
        if self.status.status is not JobState.RUNNING:
            self.status = self.status.model_copy(update={"status": JobState.RUNNING})
            self._write()

    def tensorboard_at(self, where: str) -> None:
        """Say where TensorBoard is: in YARN's cluster mode nobody sees what the driver prints."""
        self.status = self.status.model_copy(update={"tensorboard": where})
        self._write()

    def spent(self, cost: Mapping[str, float]) -> None:
        """Note what the job has cost; written with its next state."""
        self.status = self.status.model_copy(update={"cost": dict(cost)})

    def restarting(self, attempt: int) -> None:
        """Say that workers were lost and that another try follows."""
        update = {"status": JobState.RESTARTING, "attempt": attempt}
        self.status = self.status.model_copy(update=update)
        self._write()

    def succeeded(self, metrics: Mapping[str, float]) -> None:
        """Say that the job ended well."""
        self.status = self.status.succeeded(dict(metrics))
        self._write()

    def failed(self, error: BaseException) -> None:
        """Say what ended the job; a file that cannot be written must not hide it."""
        self.status = self.status.failed(error, cancelled=is_cancel(error))
        try:
            self._write()
        except StorageError:
            logger.exception("the status of %s could not be written", self.status.id)


@contextlib.contextmanager
def recorded(job: str, paths: RunPaths, *, attempt: int = 1) -> Iterator[Record]:
    """Keep `status.json` true whatever happens in the block; it calls `Record.succeeded`."""
    status = JobStatus(job=job, id=paths.run_id, status=JobState.STARTING, attempt=attempt)
    record = Record(paths.status, status)
    try:
        yield record
    except BaseException as error:
        record.failed(error)
        raise


def finished_run(paths: RunPaths) -> Run | None:
    """Return the run that is in a directory, `None` if none has succeeded there."""
    status = read_status(paths)
    if status is None or status.status is not JobState.SUCCEEDED:
        return None
    storage = Storage(paths.root)
    versions = [int(name) for name in storage.list(paths.models) if name.isdecimal()]
    return Run(
        run_id=paths.run_id,
        path=paths.root,
        history=_history(storage.read_text(paths.metrics)),
        metrics={name: _number(value) for name, value in status.metrics.items()},
        model_path=paths.model(max(versions)) if versions else "",
    )


def read_status(paths: RunPaths) -> JobStatus | None:
    """Return what `status.json` says, `None` where there is none.

    Raises:
        ConfigError: it is not such a file.
    """
    if not Storage(paths.root).exists(paths.status):
        return None
    try:
        return JobStatus.read(paths.status)
    except ValidationError as error:
        msg = f"{paths.status} is not the status of a run: {error}"
        raise ConfigError(msg) from error


def _history(lines: str) -> dict[str, list[float]]:
    """Return the metrics an epoch, from `metrics.jsonl`."""
    known = {"time", "epoch", "step", "split", "scope"}
    history: dict[str, list[float]] = {}
    for line in lines.splitlines():
        record = json.loads(line)
        if record["scope"] == "epoch":
            prefix = "" if record["split"] == "train" else "val_"
            for name in record.keys() - known:
                history.setdefault(prefix + name, []).append(_number(record[name]))
    return history


def _number(value: float | None) -> float:
    """Return a value from JSON, which holds null where a number is not finite."""
    return math.nan if value is None else value

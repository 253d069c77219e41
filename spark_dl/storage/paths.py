"""Every path that a run writes, in one place."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass

from spark_dl.errors import ConfigError
from spark_dl.storage.filesystem import join, normalise

__all__ = ["RunPaths", "job_run_id", "new_run_id"]

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def new_run_id(job: str = "train") -> str:
    """Return a fresh run id that sorts by time, such as ``train-20261121-074501-3fa9``."""
    return f"{job}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def job_run_id(job: str, run_id: str | None) -> str:
    """Return the id under which a job keeps its record.

    A training has the run's own id; other jobs of that id stand beside it.

    Args:
        job: name of the job.
        run_id: what the config says; `None` makes a fresh id.

    Example:
        >>> job_run_id("train", "tuesday"), job_run_id("infer", "tuesday")
        ('tuesday', 'infer-tuesday')
    """
    if run_id is None:
        return new_run_id(job)
    return run_id if job == "train" else f"{job}-{run_id}"


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """The layout of a run directory, ``<runs>/<run_id>/``.

    Attributes:
        runs: folder of run directories.
        run_id: name of this run; letters, digits, ``.``, ``_`` and ``-``.
    """

    runs: str
    run_id: str

    def __post_init__(self) -> None:
        """Check the run id, which becomes a folder name."""
        if not _RUN_ID.fullmatch(self.run_id):
            msg = (
                f"run_id {self.run_id!r}: expected letters, digits, '.', '_' and '-' only, at most "
                "100"
            )
            raise ConfigError(msg)
        object.__setattr__(self, "runs", normalise(self.runs))

    @property
    def root(self) -> str:
        """The run directory itself."""
        return join(self.runs, self.run_id)

    @property
    def job(self) -> str:
        """The job's resolved config."""
        return join(self.root, "job.yaml")

    @property
    def manifest(self) -> str:
        """The manifest of the dataset that the run was trained on."""
        return join(self.root, "manifest.json")

    @property
    def status(self) -> str:
        """The run's state, see `RunStatus`."""
        return join(self.root, "status.json")

    @property
    def heartbeat(self) -> str:
        """When the run's driver was last alive; there only while it runs."""
        return join(self.root, "heartbeat.json")

    @property
    def stop(self) -> str:
        """A request to stop; whatever it holds, the driver obeys when it sees the file."""
        return join(self.root, "stop.json")

    @property
    def metrics(self) -> str:
        """One JSON object a step or epoch."""
        return join(self.root, "metrics.jsonl")

    @property
    def events(self) -> str:
        """TensorBoard's log directory; one folder a split in it."""
        return join(self.root, "events")

    @property
    def checkpoints(self) -> str:
        """Folder of checkpoints."""
        return join(self.root, "checkpoints")

    @property
    def models(self) -> str:
        """Folder of exported versions."""
        return join(self.root, "model")

    def model(self, version: int) -> str:
        """One exported version: a SavedModel with `model.keras` and our files in it."""
        return join(self.models, str(version))

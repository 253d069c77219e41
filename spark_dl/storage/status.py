"""`status.json`: what became of a job, for schedulers and for people.

In YARN's cluster mode neither the exit code nor the output of the driver reaches `spark-submit`:
this file does.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from spark_dl.errors import SparkDLError, TrainingFailedError
from spark_dl.storage.filesystem import Storage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JobState", "JobStatus", "StatusError", "finite", "now"]


def now() -> str:
    """Return the time in UTC as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return metrics as JSON can hold them: `None` where a value is not finite.

    JSON has no NaN and no infinity; a training that diverged has both.

    Example:
        >>> finite({"loss": float("nan"), "accuracy": 0.5})
        {'loss': None, 'accuracy': 0.5}
    """
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in metrics.items()
    }


class JobState(StrEnum):
    """States of a job as others see them."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StatusError(BaseModel):
    """The error that ended a job.

    Attributes:
        error_class: class of the error; written as ``class``.
        message: its text.
        rank: the first rank that failed, if the error came from one.
        retryable: whether running the job again may help.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    error_class: str = Field(alias="class")
    message: str
    rank: int | None = None
    retryable: bool = False

    @classmethod
    def from_exception(cls, error: BaseException) -> StatusError:
        """Describe any exception."""
        rank = (
            error.failures[0].rank
            if isinstance(error, TrainingFailedError) and error.failures
            else None
        )
        retryable = error.retryable if isinstance(error, SparkDLError) else False
        return cls(
            error_class=type(error).__name__, message=str(error), rank=rank, retryable=retryable
        )


class JobStatus(BaseModel):
    """The content of `status.json`.

    Attributes:
        metrics: the last value of each; `None` where it was not finite.
        cost: what the job took, see `spark_dl.pipeline.cost`.
        tensorboard: where TensorBoard is while the job runs, and how to get there.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    id: str
    status: JobState
    attempt: int = 1
    started: str = Field(default_factory=now)
    ended: str | None = None
    error: StatusError | None = None
    metrics: dict[str, float | None] = Field(default_factory=dict)
    cost: dict[str, float] = Field(default_factory=dict)
    tensorboard: str | None = None

    def write(self, path: str) -> None:
        """Write the file atomically."""
        Storage(path).write_atomic(path, self.model_dump_json(indent=2, by_alias=True))

    @classmethod
    def read(cls, path: str) -> JobStatus:
        """Read the file."""
        return cls.model_validate_json(Storage(path).read_bytes(path))

    def succeeded(self, metrics: Mapping[str, float]) -> JobStatus:
        """Return the status of a job that ended well."""
        return self.model_copy(
            update={"status": JobState.SUCCEEDED, "ended": now(), "metrics": finite(metrics)}
        )

    def failed(self, error: BaseException, *, cancelled: bool = False) -> JobStatus:
        """Return the status of a job that `error` ended."""
        state = JobState.CANCELLED if cancelled else JobState.FAILED
        return self.model_copy(
            update={"status": state, "ended": now(), "error": StatusError.from_exception(error)}
        )

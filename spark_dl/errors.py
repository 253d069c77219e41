"""The error tree of `spark_dl`.

Every error says what failed, where, what was expected and what to change. Three things follow from
its class:

- ``retryable``: whether running the same thing again can help (a lost executor: yes; a missing
  column: no);
- ``exit_code``: what a job exits with (see ``jobs/``);
- pickling: every error survives it, because errors travel from executors to the driver.

Subclasses take one message; further facts are attributes set by the classmethods that build them.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "CancelledError",
    "ClusterError",
    "ConfigError",
    "DataError",
    "InternalError",
    "ManifestError",
    "MetricError",
    "ModelError",
    "RankFailure",
    "ResourceError",
    "SchemaError",
    "ShardError",
    "SparkDLError",
    "StorageError",
    "TableError",
    "TimeoutExpiredError",
    "TrainingFailedError",
    "WorkerLostError",
    "did_you_mean",
    "is_cancel",
]

EXIT_DEFECT = 1
EXIT_USER = 2
EXIT_RETRY = 75
EXIT_CANCELLED = 130


def is_cancel(error: BaseException) -> bool:
    """Whether somebody ended what was running: by a request, a signal, an interrupt."""
    return isinstance(error, CancelledError) or not isinstance(error, Exception)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` when a known name is close to `name`, else an empty string.

    Example:
        >>> did_you_mean("lable", ["label", "features"])
        "; did you mean 'label'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


class SparkDLError(Exception):
    """Base of all errors that `spark_dl` raises on purpose."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_USER


class ConfigError(SparkDLError):
    """A setting or an argument is wrong: the user must change it.

    Example scenario: a YAML key that does not exist, a global batch size that the world size does
    not divide.
    """

    @classmethod
    def unknown_key(cls, key: str, *, where: str, known: Iterable[str]) -> ConfigError:
        """An unknown key in a config section, with the closest known one."""
        names = sorted(known)
        return cls(
            f"{where}: unknown key {key!r}{did_you_mean(key, names)} (known keys: "
            f"{', '.join(names)})"
        )


class DataError(SparkDLError):
    """The data is not what was promised: a null label, a wrong length, an empty split."""


class TableError(DataError):
    """A table cannot be read or written: it is missing, or the version asked for is not there."""


class SchemaError(DataError):
    """A column or its type does not fit.

    Example scenario: a feature names a column that the table lacks; a decimal column without an
    explicit cast.
    """

    @classmethod
    def missing_column(
        cls, column: str, available: Sequence[str], *, role: str = "feature"
    ) -> SchemaError:
        """A column that the table does not have, with the closest name that it does have."""
        hint = did_you_mean(column, available)
        return cls(
            f"{role} column {column!r} is not in the table{hint} (columns: {', '.join(available)})"
        )


class ManifestError(DataError):
    """A dataset's folder has no manifest that can be read: without it there is no data."""


class ShardError(DataError):
    """A shard is damaged, missing or differs from what its manifest says."""


class ModelError(SparkDLError):
    """A model directory, its signature or its feature spec is missing or does not fit the table."""


class MetricError(ModelError):
    """A model's own metric is no sum over rows: several tasks cannot share its work."""


class StorageError(SparkDLError):
    """A path cannot be read or written: wrong scheme, missing client library, no permission."""


class StorageUnreachableError(StorageError):
    """A file system does not answer, or not in time: trying again may help."""

    retryable = True
    exit_code = EXIT_RETRY


class ClusterError(SparkDLError):
    """The training cluster could not be started or kept together."""

    retryable = True
    exit_code = EXIT_RETRY


class ResourceError(ClusterError):
    """The Spark cluster cannot hold what was asked for: waiting would not help.

    Example scenario: four workers asked for on two free task slots.
    """

    retryable = False
    exit_code = EXIT_USER


class TimeoutExpiredError(ClusterError):
    """A wait reached its deadline; the message says for what, and which setting lengthens it."""

    @classmethod
    def waiting_for(cls, what: str, timeout_s: float, setting: str) -> TimeoutExpiredError:
        """A deadline that passed, what was waited for, and the setting that changes it."""
        return cls(
            f"gave up after {timeout_s:g} s waiting for {what}; raise `{setting}` if this is "
            "normal here"
        )


class WorkerLostError(ClusterError):
    """A worker vanished without saying why: its executor, its host or its connection is gone."""


class CancelledError(SparkDLError):
    """The run was cancelled by its user or by the cluster manager."""

    exit_code = EXIT_CANCELLED


class InternalError(SparkDLError):
    """A defect of `spark_dl` itself."""

    exit_code = EXIT_DEFECT


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """How one rank failed.

    Attributes:
        rank: the rank in the training cluster.
        host: host name of its executor.
        error: class name of the exception, or what became of the process (``"exit code 3"``,
            ``"signal SIGKILL"``).
        message: the exception's message; empty when the process died without one.
        traceback: the traceback in the user's and our code; empty when there is none.
        log_tail: the last lines that the worker wrote to stdout and stderr.
        log_url: where the whole log of its container can be read; empty where nothing says it.
        retryable: whether the same work may succeed when tried again.
        is_of_memory: whether a limit of memory ended it.
    """

    rank: int
    host: str
    error: str
    message: str = ""
    traceback: str = ""
    log_tail: tuple[str, ...] = ()
    log_url: str = ""
    retryable: bool = False
    is_of_memory: bool = False

    def cause(self) -> str:
        """Return the failure in one line, cause first."""
        return f"{self.error}: {self.message}" if self.message else self.error


class TrainingFailedError(SparkDLError):
    """Training failed on one or more ranks; equal failures are merged, the cause comes first.

    Attributes:
        failures: what happened on each failed rank, in order of rank.
    """

    failures: tuple[RankFailure, ...] = ()

    @classmethod
    def from_failures(cls, failures: Sequence[RankFailure]) -> TrainingFailedError:
        """Build the error from the failures of the ranks.

        Args:
            failures: at least one failure; failures that merely followed from another's are left
                out by the caller.
        """
        ordered = tuple(sorted(failures, key=lambda failure: failure.rank))
        groups: dict[tuple[str, str], list[RankFailure]] = defaultdict(list)
        for failure in ordered:
            groups[failure.cause(), failure.traceback].append(failure)
        kind = RetryableTrainingFailedError if all(f.retryable for f in ordered) else cls
        error = kind("\n\n".join(_render(group) for group in groups.values()))
        error.failures = ordered
        return error

    def given_up(self, why: str, *, is_final: bool) -> TrainingFailedError:
        """Return this error with the reason why the run was not started again.

        Args:
            why: the reason.
            is_final: whether starting the run again by hand would end alike.
        """
        kind = TrainingFailedError if is_final else type(self)
        error = kind(f"{self}\n\nnot restarted: {why}")
        error.failures = self.failures
        return error


class RetryableTrainingFailedError(TrainingFailedError):
    """Training failed for a reason outside the user's code: trying again may help."""

    retryable = True
    exit_code = EXIT_RETRY


def _render(group: Sequence[RankFailure]) -> str:
    first = group[0]
    ranks = ", ".join(str(failure.rank) for failure in group)
    hosts = ", ".join(sorted({failure.host for failure in group}))
    parts = [f"[rank {ranks} on {hosts}] {first.cause()}"]
    if first.traceback:
        parts.append(first.traceback.rstrip())
    if first.log_tail:
        parts.append(f"last log lines of rank {first.rank}:")
        parts.extend(f"  {line}" for line in first.log_tail)
    parts.extend(f"log of rank {f.rank}'s container: {f.log_url}" for f in group if f.log_url)
    return "\n".join(parts)

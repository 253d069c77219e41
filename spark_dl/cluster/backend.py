"""What a backend is: it launches one task a rank, all or none, and says how they fare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spark_dl.cluster.plan import LaunchRequest
    from spark_dl.cluster.status import WorkerStatus

__all__ = ["Backend", "WorkerGroup"]


class WorkerGroup(Protocol):
    """The ranks of one launch."""

    def poll(self, timeout_s: float) -> Sequence[WorkerStatus]:
        """Wait up to `timeout_s` for news and return the status of every rank, in order."""

    def restart_children(self, attempt: int) -> bool:
        """Have every agent replace its child, for another try; return whether they all can."""

    def halt(self) -> None:
        """Have every agent end its child, and wait for what follows."""

    def ask_for_stacks(self) -> None:
        """Have every child write its stack, and the agents send it."""

    def release(self) -> None:
        """Let the children go, once every rank is done."""

    def cancel(self, reason: str) -> None:
        """Stop every rank: a message first, then the Spark job."""

    def close(self) -> None:
        """Wait for the tasks' end and give everything back."""


class Backend(Protocol):
    """A way to form a TensorFlow cluster on Spark's executors."""

    @property
    def name(self) -> str:
        """What ``cluster.backend`` calls it."""

    def launch(self, request: LaunchRequest) -> WorkerGroup:
        """Start `request.num_workers` ranks."""

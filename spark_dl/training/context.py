"""What the training needs to know of the process that it runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RankContext"]


class RankContext(Protocol):
    """One rank's place in the cluster; `spark_dl.cluster.child.ChildContext` is one.

    Attributes:
        rank: 0 is the chief.
        world_size: number of ranks.
        cores: CPU cores of the task.
        addresses: ``host:port`` of each rank's TensorFlow server.
        start_timeout_s: how long ranks may wait for each other until they can work together.
        report: sends a JSON-able event to the driver.
    """

    @property
    def rank(self) -> int:
        """This process's rank."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""

    @property
    def cores(self) -> int:
        """CPU cores of the task."""

    @property
    def addresses(self) -> Sequence[str]:
        """``host:port`` of each rank's TensorFlow server."""

    @property
    def start_timeout_s(self) -> float:
        """How long ranks may wait for each other until they can work together."""

    @property
    def report(self) -> Callable[[dict[str, Any]], None]:
        """Sends an event to the driver."""

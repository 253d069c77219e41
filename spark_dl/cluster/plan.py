"""What travels from the driver to every task: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spark_dl.cluster.profile import WorkerResources
from spark_dl.cluster.restart import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spark_dl.ports import PortRange

__all__ = ["LaunchPlan", "LaunchRequest", "Timeouts"]


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Deadlines of a cluster, in seconds; `ClusterConfig` has their defaults and reasons.

    Attributes:
        start_s: from the launch until every agent has connected and the cluster is formed.
        stop_s: from the stop request until every task has ended.
        heartbeat_s: between two signs of life, of an agent and of the driver.
        lost_s: silence after which an agent counts as lost, and a driver to its agents.
    """

    start_s: float = 120.0
    stop_s: float = 30.0
    heartbeat_s: float = 1.0
    lost_s: float = 8.0


def _ignore(*_: object) -> None:
    """Take anything and do nothing with it."""


def _goes_on() -> str | None:
    """Say that nobody wants the run to stop."""
    return None


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What a caller asks a backend to run.

    Attributes:
        function: runs on every rank in a child process, ``function(value, context) -> JSON-able
            dict``.
        value: a picklable value.
        num_workers: number of ranks.
        resources: what each of them gets from Spark.
        name: shown in logs.
        title: what it does, shown in the Spark UI; by default `name`.
        preload: modules that children import while the cluster forms.
        environ: environment variables for the children.
        noise: lines that contain one of these are neither relayed nor shown in errors.
        timeouts: deadlines.
        attempt: number of the first try.
        restarts: how often workers that were lost are started again.
        stall_after_s: how long ranks may be without progress before they are named; `None`: for
            ever.
        stall_timeout_s: how long before the try ends; `None`: for ever.
        slow_after_s: how long a rank may be much slower than the others before it is named; `None`:
            for ever.
        on_restart: called with the number of the try that follows and the error that ended the one
            before.
        on_cancel: called with what cancels the run, before its workers are stopped: whoever cancels
            may leave this process no time for more.
        make_room: called before a stage is launched anew: waits until there is room for it, and
            calls its argument often, which raises when the run is to be cancelled.
        describe_room: says who holds the cluster's task slots, for the error of ranks that did not
            start in time; may be empty.
        on_event: called on the driver with ``(rank, event)`` for what ranks report.
        on_log: called on the driver with ``(rank, host, line)`` for what children print.
        ports: where the ports of this run must lie; `None`: anywhere.
        shared_folder: a folder that this process and the executors share; needed where agents
            cannot reach this process (Spark Connect).
        stop_reason: asked often: why the run is to be cancelled, `None` to go on; must not block.
    """

    function: Callable[[Any, Any], dict[str, Any]]
    value: object
    num_workers: int
    resources: WorkerResources = field(default_factory=WorkerResources)
    name: str
    title: str = ""
    preload: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    noise: tuple[str, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    attempt: int = 1
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    stall_after_s: float | None = None
    stall_timeout_s: float | None = None
    slow_after_s: float | None = None
    on_restart: Callable[[int, Exception], None] = _ignore
    on_cancel: Callable[[BaseException], object] = _ignore
    make_room: Callable[[Callable[[], None]], object] = _ignore
    describe_room: Callable[[], str] = str
    on_event: Callable[[int, dict[str, Any]], None] = _ignore
    on_log: Callable[[int, str, str], None] = _ignore
    stop_reason: Callable[[], str | None] = _goes_on
    shared_folder: str = ""
    ports: PortRange | None = None


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """What every task of the stage gets, in its closure: Spark's own channel carries the secret.

    Attributes:
        job: cloudpickle blob of ``(function, value)``; only children open it.
        world_size: number of ranks.
        control: host and port of the driver's control channel.
        mailbox: where the driver cannot be reached: the folder by which rank 0 passes messages to
            and from the client; empty otherwise.
        secret: the run's secret; never logged.
        backend: name of the backend.
        attempt: number of this try.
        search_path: the driver's own module folders, for executors that share its file system.
        preload: modules that children import early.
        environ: environment variables for the children.
        noise: lines to leave out.
        timeouts: deadlines.
        name: shown in logs.
        ports: where the ports of this run must lie; `None`: anywhere.
    """

    job: bytes = field(repr=False)
    world_size: int
    control: tuple[str, int]
    mailbox: str = ""
    secret: bytes = field(repr=False)
    backend: str
    attempt: int = 1
    search_path: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    noise: tuple[str, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    name: str = ""
    ports: PortRange | None = None

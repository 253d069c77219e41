"""What the checks judge: plain values, gathered before any of them runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Facts", "HostFacts", "PathFacts", "Room", "SessionFacts", "Wishes"]


@dataclass(frozen=True, kw_only=True)
class Room:
    """Space in a folder; `problem` says why it cannot be written."""

    free_bytes: int
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class PathFacts:
    """How an executor got on with a path: `None`, or what went wrong."""

    read: str | None = None
    write: str | None = None


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """The driver's process, or one executor task.

    Attributes:
        host: host name.
        python: version of the interpreter.
        executable: its path.
        packages: distribution → version, of those that are installed.
        shm: shared memory.
        disks: Spark's local folders, on executors.
        memory_bytes: memory that could be had, `None` when nothing says.
        gpu_devices: GPU devices of the host.
        tensorflow_gpus: GPUs that TensorFlow sees, or why it does not say; `None`: not asked.
        spark_gpus: GPUs that Spark gave the task.
        rank: number of the task.
        skew_s: the driver's clock minus this one; `None`: not known.
        driver_problem: why the driver could not be reached.
        free_ports: ports of ``cluster.ports`` that can be bound; `None`: no range.
        peer_problems: other executors that could not be reached; `None`: not tried.
        paths: for each storage path, how it went.
    """

    host: str
    python: str
    executable: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    shm: Room = field(default_factory=lambda: Room(free_bytes=1 << 30))
    disks: Mapping[str, Room] = field(default_factory=dict)
    memory_bytes: int | None = None
    gpu_devices: int = 0
    tensorflow_gpus: int | str | None = None
    spark_gpus: int = 0
    rank: int = 0
    skew_s: float | None = None
    driver_problem: str | None = None
    free_ports: int | None = None
    peer_problems: tuple[str, ...] | None = None
    paths: Mapping[str, PathFacts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SessionFacts:
    """The Spark session.

    Attributes:
        version: Spark's version.
        scala: its Scala, `None` on Connect.
        master: the cluster.
        conf: its settings.
        is_connect: whether it is a Connect client.
        slots: task slots of the executors that are there; `None` on Connect.
        connector: jar that the connector's class comes from; `None`: it has none.
        connector_at_hand: jar that could be added, or why there is none.
        delta_problem: why Delta cannot be used.
        delta_jar: the jar that Delta comes from.
    """

    version: str
    scala: str | None
    master: str
    conf: Mapping[str, str]
    is_connect: bool = False
    slots: int | None = None
    connector: str | None = None
    connector_at_hand: str | None = None
    delta_problem: str | None = None
    delta_jar: str | None = None

    @property
    def is_dynamic(self) -> bool:
        """Whether executors come and go: there may be none until a job asks for them."""
        return self.conf.get("spark.dynamicAllocation.enabled", "false").lower() == "true"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the config asks for.

    Attributes:
        num_workers: training processes; `None` takes all slots.
        uses_delta: whether a table of it is a Delta table.
        trains: whether there is something to train.
        parameters: of the model; `None`: not known.
        parameters_problem: why not.
        ports: first and last port that workers may use; `None`: any.
    """

    num_workers: int | None = None
    uses_delta: bool = False
    trains: bool = True
    parameters: int | None = None
    parameters_problem: str | None = None
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything.

    Attributes:
        java: the text of ``java -version``, `None` when there is no Java.
        java_home: where it was looked for.
        pyspark: version of the pyspark installed here, `None`: none.
        spark_home: version of the Spark in SPARK_HOME, `None`: not set, or no Spark.
        driver: this process.
        wishes: the config's.
        session: `None` when there is none.
        session_problem: why not.
        executors: one entry a task; empty when the tiny job did not end well.
        executors_problem: why not.
        storage: path → why the driver cannot use it, `None` if it can.
    """

    java: str | None
    java_home: str | None = None
    pyspark: str | None
    spark_home: str | None = None
    driver: HostFacts
    wishes: Wishes
    session: SessionFacts | None = None
    session_problem: str | None = None
    executors: tuple[HostFacts, ...] = ()
    executors_problem: str | None = None
    storage: Mapping[str, str | None] = field(default_factory=dict)

    def workers_on(self, host: str) -> int:
        """Return how many workers a host gets at most."""
        tasks = sum(executor.host == host for executor in self.executors)
        return min(tasks, self.wishes.num_workers or tasks)

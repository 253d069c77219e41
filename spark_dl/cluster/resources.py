"""Whether Spark can hold the workers: asked first, as a barrier stage would wait for minutes."""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import TYPE_CHECKING, Final

from spark_dl import _jvm
from spark_dl.cluster.profile import WorkerResources, cluster_conf, worker_profile
from spark_dl.errors import CancelledError, ConfigError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

__all__ = [
    "SlotFacts",
    "choose_num_workers",
    "describe_slots",
    "executors_of",
    "expected_slots",
    "refuse_shared_gpus",
    "refuse_unencrypted",
    "refuse_unsupported",
    "slot_capacity",
    "wait_for_room",
    "wait_for_slots",
]

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.1
#: How long slots may grow when nothing says how many executors will come.
_SETTLE_S: Final = 10.0
_DEFAULT: Final = WorkerResources()
#: Of the jobs that hold slots, how many are told, with how much of what they are.
_TOLD_JOBS: Final = 3
_TOLD_CHARS: Final = 60


@dataclass(frozen=True, kw_only=True)
class SlotFacts:
    """How many tasks Spark can run at once.

    Attributes:
        total: task slots of the executors that are there.
        busy: slots that other jobs' tasks hold.
        expected: slots that there will be once all executors have come; `None` when nothing says
            it.
        jobs: who holds the busy ones, as far as Spark knows it.
    """

    total: int
    busy: int = 0
    expected: int | None = None
    jobs: tuple[_jvm.RunningJob, ...] = ()

    @property
    def free(self) -> int:
        """Slots that can be had now."""
        return max(self.total - self.busy, 0)

    def __str__(self) -> str:
        """Say it, with the jobs that have to end before there are more."""
        said = f"{self.total} task slots, {self.busy} of them busy"
        if not self.jobs:
            return said
        told = [
            f"{job.tasks} by job {job.id} ({shorten(job.description, _TOLD_CHARS)})"
            for job in self.jobs[:_TOLD_JOBS]
        ]
        if further := len(self.jobs) - len(told):
            told.append(f"others by {further} more")
        return f"{said}: {', '.join(told)}"


def expected_slots(conf: dict[str, str], cpus: int | None = None) -> int | None:
    """Return how many task slots a configuration promises, `None` when it does not say.

    Args:
        conf: the SparkContext's configuration.
        cpus: cores of a task; by default what the configuration says.
    """
    master = conf.get("spark.master", "")
    cpus = cpus or int(conf.get("spark.task.cpus", "1"))
    if match := re.fullmatch(r"local\[(\d+)(?:,\s*\d+)?\]", master):
        return int(match[1]) // cpus
    if match := re.fullmatch(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*\d+\s*\]", master):
        return int(match[1]) * (int(match[2]) // cpus)
    if "spark.executor.instances" in conf:
        return int(conf["spark.executor.instances"]) * (
            int(conf.get("spark.executor.cores", "1")) // cpus
        )
    return None


def executors_of(conf: dict[str, str], *, num_workers: int, cores: int) -> int:
    """Return in how many executors the workers of a run are, as far as a configuration tells.

    Where nothing says how many cores an executor has, each worker counts as alone in its own.

    Args:
        conf: the SparkContext's configuration.
        num_workers: workers of the run.
        cores: of each worker.

    Example:
        >>> executors_of({"spark.executor.cores": "4"}, num_workers=6, cores=2)
        3
    """
    match = re.fullmatch(
        r"local-cluster\[\s*\d+\s*,\s*(\d+)\s*,\s*\d+\s*\]", conf.get("spark.master", "")
    )
    of_executor = int(match[1] if match else conf.get("spark.executor.cores", str(cores)))
    return -(-num_workers // max(of_executor // cores, 1))


def refuse_unencrypted(*, required: bool) -> None:
    """Refuse to train where all traffic is to be encrypted.

    Args:
        required: ``cluster.require_encryption``.

    Raises:
        ConfigError: it is required, and TensorFlow's own traffic is not.
    """
    if required:
        msg = (
            "cluster.require_encryption is set, but workers exchange gradients and weights in "
            "clear, by ports of their own and by TensorFlow's gRPC, which is not authenticated "
            "either (spark.authenticate and spark.network.crypto cover Spark's traffic alone): "
            "train on a network of its own that encrypts (WireGuard, IPsec) with cluster.ports "
            "open between the workers only, and unset cluster.require_encryption"
        )
        raise ConfigError(msg)


def refuse_unsupported(conf: dict[str, str]) -> None:
    """Refuse settings under which a barrier stage cannot run.

    Raises:
        ConfigError: naming the setting to change.
    """
    if conf.get("spark.dynamicAllocation.enabled", "false").lower() == "true":
        msg = (
            "Spark refuses barrier stages under dynamic allocation (SPARK-24942): "
            "set spark.dynamicAllocation.enabled=false and spark.executor.instances for this job"
        )
        raise ConfigError(msg)
    if "spark.executor.pyspark.memory" in conf:
        msg = (
            "spark.executor.pyspark.memory limits the address space, under which TensorFlow "
            "cannot be imported: "
            "unset it and raise spark.executor.memoryOverhead instead"
        )
        raise ConfigError(msg)


def refuse_shared_gpus(
    conf: dict[str, str], num_workers: int, resources: WorkerResources = _DEFAULT
) -> None:
    """Refuse workers that may get one GPU together: NCCL needs one of its own for each.

    Args:
        conf: Spark's settings.
        num_workers: number of workers.
        resources: what a worker asks for.

    Raises:
        ConfigError: they may; naming the setting to change.
    """
    if num_workers > 1 and resources.may_share_gpus(conf):
        msg = (
            "spark.task.resource.gpu.amount is less than 1, so that workers may get one GPU "
            "together, which NCCL refuses: set cluster.gpus_per_worker=1 (scoring goes on with "
            "several tasks on a GPU)"
        )
        raise ConfigError(msg)


def choose_num_workers(requested: int | None, facts: SlotFacts) -> int:
    """Return how many workers to start.

    Args:
        requested: what the user asked for; `None` takes all free slots.
        facts: the slots.

    Raises:
        ResourceError: they do not fit, or there is no free slot.
    """
    if requested is not None and requested < 1:
        msg = f"num_workers must be at least 1, got {requested}"
        raise ConfigError(msg)
    advice = (
        "lower cluster.num_workers, or give Spark more executors or cores (slots = executors x "
        "cores / spark.task.cpus)"
    )
    if requested is None:
        if facts.free < 1:
            msg = f"no free task slot for a worker: Spark has {facts}; {advice}"
            raise ResourceError(msg)
        return facts.free
    if requested > facts.free:
        msg = f"{requested} workers do not fit: Spark has {facts}; {advice}"
        raise ResourceError(msg)
    return requested


def wait_for_slots(
    spark: SparkSession,
    requested: int | None,
    *,
    timeout_s: float,
    busy_timeout_s: float,
    resources: WorkerResources = _DEFAULT,
) -> SlotFacts:
    """Wait until the executors that are to come are there, and return the slots.

    A request that can never be met is not waited for; all slots that are to come count then.

    Args:
        spark: the session.
        requested: number of workers asked for.
        timeout_s: how long executors may take to register.
        busy_timeout_s: how long slots that other tasks hold may take to become free.
        resources: what a worker asks for.

    Raises:
        ConfigError: settings under which no worker can run.
    """
    conf = cluster_conf(spark)
    refuse_unsupported(conf)
    expected = expected_slots(conf, resources.task_cpus(conf))
    if _jvm.is_connect(spark):
        return _promised_slots(expected, requested)
    look = _looking(spark, resources, expected)
    facts = look()
    most = max(expected or 0, facts.total)
    if requested is not None and expected is not None and requested > most:
        return replace(facts, total=most)
    wanted = max(requested if requested is not None else expected or 1, 1)
    start_s = timeout_s if expected is not None else min(timeout_s, _SETTLE_S)
    facts = _wait(look, lambda f: f.total >= wanted, start_s)
    if facts.total < wanted:
        return facts
    if facts.free < wanted:
        logger.info(
            "waiting up to %g s for %d free task slots: Spark has %s",
            *(busy_timeout_s, wanted, facts),
        )
    return _wait(look, lambda f: f.free >= wanted, busy_timeout_s)


def wait_for_room(
    spark: SparkSession,
    num_workers: int,
    *,
    timeout_s: float,
    busy_timeout_s: float,
    resources: WorkerResources = _DEFAULT,
    check_stop: Callable[[], None],
) -> None:
    """Wait until Spark has room again for workers of which it has lost some.

    It misses a host that has fallen silent after `spark.network.timeout` only. Until then the
    executor there counts, and what ran on it as running; from then on another one may come.

    Args:
        spark: the session.
        num_workers: number of workers.
        timeout_s: how long another executor may take to register.
        busy_timeout_s: how long slots that other tasks hold may take to become free.
        resources: what a worker asks for.
        check_stop: called often; raises when nobody waits any more.

    Raises:
        CancelledError: the application is over.
        ResourceError: there is no room in time.
    """
    if _jvm.is_connect(spark):
        return
    look = _looking(spark, resources)
    patience_s = max(_jvm.seconds_until_missed(spark), busy_timeout_s) + timeout_s
    facts = look()
    if facts.free < num_workers:
        logger.info(
            "waiting up to %g s for %d free task slots, of which some may be lost: Spark has %s",
            *(patience_s, num_workers, facts),
        )
    facts = _wait(look, lambda f: f.free >= num_workers, patience_s, check_stop)
    if facts.free < num_workers:
        msg = (
            f"{patience_s:g} s after the loss Spark has no room for {num_workers} workers: "
            f"{facts}; give it another executor and start the run again, or let it wait for "
            "longer (cluster.start_timeout_s)"
        )
        raise ResourceError(msg)


def describe_slots(spark: SparkSession, resources: WorkerResources = _DEFAULT) -> str:
    """Say who holds Spark's task slots; empty on Spark Connect, where a client cannot see it."""
    return "" if _jvm.is_connect(spark) else str(_looking(spark, resources)())


def slot_capacity(spark: SparkSession) -> int | None:
    """Return how many task slots Spark has or promises, `None` where nothing says it."""
    expected = expected_slots(cluster_conf(spark))
    if _jvm.is_connect(spark):
        return expected
    return max(_jvm.task_slots(spark), expected or 0)


def _promised_slots(expected: int | None, requested: int | None) -> SlotFacts:
    """Return the slots that the server's configuration promises: a Connect client sees no others.

    Raises:
        ConfigError: the number of workers was left to us and the configuration does not say it.
    """
    if expected is None and requested is None:
        msg = (
            "cluster.num_workers is not set, and a Spark Connect client cannot count the server's "
            "task slots: set num_workers (slots = executors x cores / spark.task.cpus)"
        )
        raise ConfigError(msg)
    return SlotFacts(total=expected if expected is not None else requested or 0, expected=expected)


def _looking(
    spark: SparkSession, resources: WorkerResources, expected: int | None = None
) -> Callable[[], SlotFacts]:
    profile = worker_profile(spark, resources)

    def look() -> SlotFacts:
        if _jvm.is_stopped(spark):
            msg = "the Spark application was stopped: by spark.stop(), or by its cluster manager"
            raise CancelledError(msg)
        total, busy = _jvm.task_slots(spark, profile), _jvm.running_tasks(spark)
        jobs = _jvm.running_jobs(spark) if busy else ()
        return SlotFacts(total=total, busy=busy, expected=expected, jobs=jobs)

    return look


def _wait(
    look: Callable[[], SlotFacts],
    enough: Callable[[SlotFacts], bool],
    timeout_s: float,
    check_stop: Callable[[], None] = lambda: None,
) -> SlotFacts:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    facts = look()
    while not enough(facts) and time.monotonic() < deadline:
        check_stop()
        pause.wait(_POLL_S)
        facts = look()
    return facts

"""Checks of the cluster's settings: slots, memory, GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spark_dl.cli.doctor.findings import Check, Finding, Level, error, ok, warning
from spark_dl.cluster.memory import limits_memory, needed_bytes, overhead_bytes

if TYPE_CHECKING:
    from spark_dl.cli.doctor.facts import Facts

__all__ = ["CLUSTER"]

_MIB: Final = 1 << 20


def _conf(facts: Facts) -> dict[str, str]:
    return dict(facts.session.conf) if facts.session else {}


def _dynamic_allocation(facts: Facts) -> Finding:
    if facts.session is not None and facts.session.is_dynamic:
        return error(
            "dynamic allocation is on: Spark refuses barrier stages then (SPARK-24942)",
            "set spark.dynamicAllocation.enabled=false and spark.executor.instances",
        )
    return ok("dynamic allocation is off")


def _slots(facts: Facts) -> Finding:
    session, wanted = facts.session, facts.wishes.num_workers
    if session is None or session.slots is None:
        return Finding(level=Level.SKIPPED, text="a Connect client cannot count task slots")
    if session.is_dynamic:
        return Finding(
            level=Level.SKIPPED, text="executors come and go: no number of slots is sure"
        )
    if session.slots == 0:
        return error(
            "Spark has no task slots: no executor has come",
            "see in the cluster's UI why they do not start: too little memory or cores left? Or "
            f"they do not reach the driver: set spark.driver.host (now "
            f"{_conf(facts).get('spark.driver.host')}) to an address of this host that they reach",
        )
    if wanted is not None and wanted > session.slots:
        return error(
            f"{wanted} workers on {session.slots} task slots",
            f"set cluster.num_workers to {session.slots} or less, or give Spark more executors or "
            "cores (slots = executors x cores / spark.task.cpus)",
        )
    return ok(f"{session.slots} task slots for {wanted or 'as many'} workers")


def _pyspark_memory(facts: Facts) -> Finding:
    limit = _conf(facts).get("spark.executor.pyspark.memory")
    if limit is not None:
        return error(
            f"spark.executor.pyspark.memory={limit} limits the address space: TensorFlow cannot be "
            "imported under it",
            "unset spark.executor.pyspark.memory and raise spark.executor.memoryOverhead instead",
        )
    return ok("spark.executor.pyspark.memory is not set")


def _memory(facts: Facts) -> Finding:
    """Check the room of TensorFlow, where something kills what takes more."""
    conf, wishes = _conf(facts), facts.wishes
    master = facts.session.master if facts.session else ""
    workers = max(
        int(conf.get("spark.executor.cores", "1")) // int(conf.get("spark.task.cpus", "1")), 1
    )
    if wishes.num_workers is not None:
        workers = min(workers, wishes.num_workers)
    need, have = needed_bytes(wishes.parameters) * workers, overhead_bytes(conf)
    model = (
        f"a model of {wishes.parameters:,} parameters"
        if wishes.parameters is not None
        else f"TensorFlow alone ({wishes.parameters_problem or 'no model in the config'})"
    )
    text = f"{workers} workers an executor with {model} need about {_mib(need)}"
    if not limits_memory(master):
        return ok(f"{text}; nothing limits them on {master.partition('[')[0] or 'this master'}")
    if have < need:
        return error(
            f"{text}, memoryOverhead is {_mib(have)}: the container will be killed",
            f"set spark.executor.memoryOverhead={_round_up(need)}m",
        )
    return ok(f"{text}, memoryOverhead is {_mib(have)}")


def _host_memory(facts: Facts) -> Finding:
    """Check that a host has the memory at all, for the workers on it."""
    need = needed_bytes(facts.wishes.parameters)
    for executor in facts.executors:
        workers = facts.workers_on(executor.host)
        if executor.memory_bytes is not None and executor.memory_bytes < need * workers:
            return warning(
                f"{executor.host} has {_mib(executor.memory_bytes)} of memory left for {workers} "
                f"workers that need about {_mib(need * workers)}",
                "start fewer workers there, or free memory",
            )
    return ok("the executors' hosts have memory for the workers")


def _mib(size: int) -> str:
    return f"{size // _MIB:,} MiB"


def _round_up(size: int) -> int:
    return -(-size // (256 * _MIB)) * 256


def _gpus(facts: Facts) -> Finding:
    for executor in facts.executors:
        seen, given = executor.tensorflow_gpus, executor.spark_gpus
        if given and not isinstance(seen, int):
            return error(
                f"Spark gives GPUs on {executor.host}, but {seen or 'TensorFlow was not asked'}",
                "install a TensorFlow that starts there",
            )
        if given and seen == 0:
            return error(
                f"Spark gives {given} GPUs to a task on {executor.host}, TensorFlow sees none",
                "pip install 'tensorflow[and-cuda]' there and see that nvidia-smi works; or take "
                "spark.executor.resource.gpu.amount and spark.task.resource.gpu.amount away",
            )
        if executor.gpu_devices and not given:
            return warning(
                f"{executor.host} has {executor.gpu_devices} GPUs that Spark gives to no task",
                "set spark.executor.resource.gpu.amount, spark.task.resource.gpu.amount and "
                "spark.executor.resource.gpu.discoveryScript",
            )
    given = sum(executor.spark_gpus for executor in facts.executors)
    return ok(f"{given} GPUs, seen by Spark and TensorFlow" if given else "no GPUs, none asked for")


CLUSTER: Final = (
    Check(name="dynamic allocation", judge=_dynamic_allocation, needs="session"),
    Check(name="task slots", judge=_slots, needs="session"),
    Check(name="pyspark memory", judge=_pyspark_memory, needs="session"),
    Check(name="memory overhead", judge=_memory, needs="session"),
    Check(name="host memory", judge=_host_memory, needs="executors"),
    Check(name="gpus", judge=_gpus, needs="executors"),
)

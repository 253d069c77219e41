"""What a training has cost: what it held of the cluster, and what it did with it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cluster.memory import overhead_bytes, size_bytes
from spark_dl.cluster.resources import executors_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Held", "cost", "work_done"]

_GB: Final = 1e9
#: What adds up over the attempts of a run.
_SUMS: Final = ("core_seconds", "cpu_seconds", "gb_seconds", "rows")


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a run holds of the cluster while it trains.

    Attributes:
        cores: of all workers.
        memory_bytes: of the executors that they run in, heap and overhead.
    """

    cores: int
    memory_bytes: int

    @classmethod
    def of(cls, conf: Mapping[str, str], *, num_workers: int, cores_per_worker: int) -> Held:
        """Take it from the settings of the SparkContext.

        Args:
            conf: the settings.
            num_workers: workers of the run.
            cores_per_worker: cores of each.
        """
        settings = dict(conf)
        cores = num_workers * cores_per_worker
        if settings.get("spark.master", "").startswith("local["):
            return cls(cores=cores, memory_bytes=size_bytes(conf.get("spark.driver.memory", "1g")))
        heap = size_bytes(conf.get("spark.executor.memory", "1g"))
        executors = executors_of(settings, num_workers=num_workers, cores=cores_per_worker)
        memory = executors * (heap + overhead_bytes(settings))
        return cls(cores=cores, memory_bytes=memory)


def work_done(results: Sequence[Mapping[str, Any]], global_batch_size: int) -> dict[str, float]:
    """Return what the ranks have done: ``rows`` trained on and ``cpu_seconds``.

    Args:
        results: what the ranks returned.
        global_batch_size: rows of a step.
    """
    steps = results[0].get("steps", 0) - results[0].get("resumed_from", 0)
    cpu = sum(float(result.get("cpu_s", 0.0)) for result in results)
    return {"rows": float(max(steps, 0) * global_batch_size), "cpu_seconds": cpu}


def cost(
    held: Held, seconds: float, done: Mapping[str, float], before: Mapping[str, float]
) -> dict[str, float]:
    """Return the ``cost`` of `status.json`.

    Args:
        held: what the run held.
        seconds: how long, from its launch to its end.
        done: see `work_done`; empty for an attempt that failed, whose work is lost.
        before: the cost of the run's attempts before.

    Returns:
        ``core_seconds`` and ``gb_seconds`` held; ``rows`` trained on and ``cpu_seconds`` used;
        ``rows_per_core_second``; ``idle_share``, the share of the core-seconds in which the
        workers computed nothing: they waited for each other, or their work was lost.

    Example:
        >>> held = Held(cores=2, memory_bytes=4_000_000_000)
        >>> told = cost(held, 10.0, {"rows": 4000.0, "cpu_seconds": 15.0}, {})
        >>> told["core_seconds"], told["gb_seconds"], told["rows_per_core_second"]
        (20.0, 40.0, 200.0)
        >>> told["idle_share"]
        0.25
    """
    now = {
        **done,
        "core_seconds": held.cores * seconds,
        "gb_seconds": held.memory_bytes / _GB * seconds,
    }
    total = {name: before.get(name, 0.0) + now.get(name, 0.0) for name in _SUMS}
    cores = max(total["core_seconds"], 1e-9)
    # several threads of a worker may use more than the cores that Spark counts
    idle = max(1.0 - total["cpu_seconds"] / cores, 0.0)
    rates = {"rows_per_core_second": total["rows"] / cores, "idle_share": idle}
    return {name: round(value, 3) for name, value in {**total, **rates}.items()}

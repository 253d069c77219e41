"""What a worker takes beside an executor's heap, and whether the settings leave it that room."""

from __future__ import annotations

import logging
import re
from typing import Final

from spark_dl.cluster.profile import WorkerResources
from spark_dl.errors import ConfigError

__all__ = ["check_overhead", "limits_memory", "needed_bytes", "overhead_bytes", "size_bytes"]

logger = logging.getLogger(__name__)

_MIB: Final = 1 << 20
#: TensorFlow once imported and at work, with its threads and the interpreter.
_TENSORFLOW_BYTES: Final = 900 * _MIB
#: TensorFlow once imported, before it does anything: below that no training can start.
_IMPORT_BYTES: Final = 500 * _MIB
#: Weights, gradients, the flat copy that is averaged, and Adam's two moments, in float32.
_BYTES_A_PARAMETER: Final = 5 * 4
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
#: Spark's own default.
_LEAST_OVERHEAD: Final = 384 * _MIB
_ROUND: Final = 128 * _MIB


def size_bytes(text: str, *, unit: str = "m") -> int:
    """Return a size as Spark writes it, such as ``2g`` or ``512`` (in `unit`); 0 for anything else.

    Example:
        >>> size_bytes("2g"), size_bytes("512")
        (2147483648, 536870912)
    """
    found = re.fullmatch(r"(\d+)\s*([kmgt]?)b?", text.strip().lower())
    if found is None:
        return 0
    return int(found[1]) * _UNITS[found[2] or unit]


def overhead_bytes(conf: dict[str, str]) -> int:
    """Return what an executor may take beside its heap, by its settings or Spark's defaults."""
    if "spark.executor.memoryOverhead" in conf:
        return size_bytes(conf["spark.executor.memoryOverhead"])
    heap = size_bytes(conf.get("spark.executor.memory", "1g"))
    factor = float(conf.get("spark.executor.memoryOverheadFactor", "0.1"))
    return max(int(heap * factor), _LEAST_OVERHEAD)


def needed_bytes(parameters: int | None) -> int:
    """Return about what one worker takes: TensorFlow, and a model of so many parameters."""
    return _TENSORFLOW_BYTES + (parameters or 0) * _BYTES_A_PARAMETER


def limits_memory(master: str) -> bool:
    """Whether a cluster manager ends executors that take more than they asked for."""
    return master.startswith(("yarn", "k8s"))


def check_overhead(
    conf: dict[str, str], num_workers: int, resources: WorkerResources | None = None
) -> None:
    """Compare the overhead with what TensorFlow takes, where a cluster manager limits it.

    The model's own need is not known here; `spark-dl doctor` builds it and counts.

    Args:
        conf: the SparkContext's configuration.
        num_workers: workers of the run.
        resources: what a worker asks for; by default what the configuration says.

    Raises:
        ConfigError: not even TensorFlow's import fits.
    """
    if not limits_memory(conf.get("spark.master", "")):
        return
    cpus = (resources or WorkerResources()).task_cpus(conf)
    slots = int(conf.get("spark.executor.cores", "1")) // cpus
    workers = max(min(slots, num_workers), 1)
    have, need = overhead_bytes(conf), needed_bytes(None) * workers
    if have >= need:
        return
    # the model comes on top: half as much again is a start
    generous = -(-need * 3 // (2 * _ROUND)) * _ROUND
    advice = f"set spark.executor.memoryOverhead={generous // _MIB}m"
    text = (
        f"an executor's memoryOverhead is {have // _MIB} MiB, but {workers} workers in it take "
        f"about {need // _MIB} MiB without any model, because TensorFlow's memory counts against it"
    )
    if have < _IMPORT_BYTES * workers:
        msg = f"{text}: {advice}"
        raise ConfigError(msg)
    logger.warning("%s; the cluster may kill the container: %s", text, advice)

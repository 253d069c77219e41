"""The function that the cluster runs on every rank; importing it needs no TensorFlow."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from spark_dl.training.context import RankContext
    from spark_dl.training.task import TrainTask

__all__ = ["NOISE", "PRELOAD", "run_rank"]

#: What a child imports while the cluster is still forming: most of its start-up time.
PRELOAD: Final = ("tensorflow", "keras")

#: What TensorFlow prints at every start on a machine without GPUs, at any log level; it would fill
#: the last log lines that an error shows.
NOISE: Final = (
    "All log messages before absl::InitializeLog() is called",
    "oneDNN custom operations are on",
    "Could not find cuda drivers on your machine",
    "failed call to cuInit",
)


def run_rank(task: TrainTask, context: RankContext) -> dict[str, Any]:
    """Train on one rank; see `spark_dl.training.worker.train`. Adds ``cpu_s``, its CPU seconds."""
    from spark_dl.training.worker import train

    result = train(task, context)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {**result, "cpu_s": used.ru_utime + used.ru_stime}

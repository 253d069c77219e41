"""The function that the cluster runs on every rank; importing it needs no TensorFlow, so that any driver can send it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from spark_dl.training.context import RankContext
    from spark_dl.training.task import TrainTask

__all__ = ["PRELOAD", "run_rank"]

#: What a child imports while the cluster is still forming: most of its start-up time.
PRELOAD: Final = ("tensorflow", "keras")


def run_rank(task: TrainTask, context: RankContext) -> dict[str, Any]:
    """Train on one rank; see `spark_dl.training.worker.train`."""
    from spark_dl.training.worker import train

    return train(task, context)

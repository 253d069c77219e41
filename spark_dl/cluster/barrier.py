"""The backend `barrier`: a barrier stage, its rendezvous by Spark's own `allGather`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from spark_dl.cluster.agent import Agent, TaskFacts
from spark_dl.cluster.group import BarrierWorkerGroup
from spark_dl.cluster.hub import reached_control
from spark_dl.cluster.spec import ClusterSpec, PortHolder, join_address, source_address
from spark_dl.errors import ClusterError

if TYPE_CHECKING:
    from pyspark import BarrierTaskContext
    from pyspark.sql import SparkSession

    from spark_dl.cluster.plan import LaunchPlan, LaunchRequest

__all__ = ["BarrierBackend"]


def _form(plan: LaunchPlan, task: TaskFacts, context: BarrierTaskContext) -> None:
    """Join the cluster and run this rank's agent."""
    with reached_control(plan, context) as reached:
        _form_reached(reached, task, context)


def _form_reached(plan: LaunchPlan, task: TaskFacts, context: BarrierTaskContext) -> None:
    gathered = False
    try:
        with Agent(plan, task) as agent, PortHolder(ports=plan.ports) as holder:
            address = join_address(source_address(plan.control), holder.port)
            gathered = True
            spec = _gather(context, {"address": address})
            agent.run(spec)
    except Exception as error:
        if not gathered:
            # the others must not wait for an address that will not come
            _gather(context, {"error": f"rank {task.rank}: {error}"})
        raise


def _gather(context: BarrierTaskContext, mine: dict[str, str]) -> ClusterSpec:
    answers = [json.loads(text) for text in context.allGather(json.dumps(mine))]
    errors = [answer["error"] for answer in answers if "error" in answer]
    if errors:
        raise ClusterError("; ".join(errors))
    return ClusterSpec(tuple(answer["address"] for answer in answers))


class BarrierBackend:
    """Launches ranks as tasks of a barrier stage.

    Args:
        spark: the session whose executors are used.
    """

    name: Final = "barrier"

    def __init__(self, spark: SparkSession) -> None:
        """Remember the session."""
        self._spark = spark

    def launch(self, request: LaunchRequest) -> BarrierWorkerGroup:
        """Start the ranks."""
        return BarrierWorkerGroup(self._spark, self.name, _form, request)

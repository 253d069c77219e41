"""The backend `tensorflowonspark`: each task of the barrier stage is a TensorFlowOnSpark node.

Roles, cluster spec, TF_CONFIG and manager come from `TFSparkNode.run` of tensorflowonspark 2.2.5.
Its driver side (`TFCluster`) is not used: it ends the SparkContext and the program on errors, and
its reservation server unpickles what any TCP client sends. Nodes register over the run's control
channel instead, and what the node module does to its process (environment, logging, a manager that
outlives its parent) is undone or fenced here.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import time
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cluster.agent import Agent, TaskFacts
from spark_dl.cluster.child import die_with_parent
from spark_dl.cluster.codec import Message, connect
from spark_dl.cluster.group import BarrierWorkerGroup
from spark_dl.cluster.spec import ClusterSpec, PortHolder, source_address
from spark_dl.errors import ClusterError, TimeoutExpiredError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from pyspark import BarrierTaskContext
    from pyspark.sql import SparkSession

    from spark_dl.cluster.plan import LaunchPlan, LaunchRequest

__all__ = ["TensorFlowOnSparkBackend"]

_QUERY_INTERVAL_S: Final = 0.05
_QUEUES: Final = ["input", "output", "error"]


@dataclass(frozen=True, kw_only=True)
class _ReservationClient:
    """Stands in for `tensorflowonspark.reservation.Client`, over the control channel."""

    plan: LaunchPlan
    stopping: threading.Event

    def __call__(self, _server_addr: tuple[str, int]) -> _ReservationClient:
        """Be class and instance in one: the node calls ``reservation.Client(server_addr)``."""
        return self

    @contextlib.contextmanager
    def _session(self) -> Iterator[Any]:
        channel = connect(self.plan.control, self.plan.secret, timeout_s=self.plan.timeouts.start_s)
        try:
            channel.send({"kind": "reservation"})
            yield channel
        finally:
            channel.close()

    def register(self, node: Message) -> None:
        """Register a node; the manager's key and address stay on its host."""
        public = {
            key: node[key] for key in ("executor_id", "host", "job_name", "task_index", "port")
        }
        with self._session() as channel:
            channel.request({"kind": "register", "node": public})

    def get_reservations(self) -> list[Message]:
        """Return none: a task is never a retry of a node of the same attempt."""
        return []

    def await_reservations(self) -> list[Message]:
        """Wait until every node has registered.

        Raises:
            TimeoutExpiredError: the missing ranks did not come in time.
            ClusterError: the run is being stopped.
        """
        deadline = time.monotonic() + self.plan.timeouts.start_s
        with self._session() as channel:
            while not (answer := channel.request({"kind": "query"}))["ready"]:
                if self.stopping.is_set():
                    msg = "the cluster was not formed: the run is being stopped"
                    raise ClusterError(msg)
                if time.monotonic() > deadline:
                    what = f"ranks {answer['missing']} of {self.plan.world_size} to register"
                    raise TimeoutExpiredError.waiting_for(
                        what, self.plan.timeouts.start_s, "cluster.start_timeout_s"
                    )
                self.stopping.wait(_QUERY_INTERVAL_S)
            nodes: list[Message] = channel.request({"kind": "nodes"})["nodes"]
            return nodes

    def close(self) -> None:
        """Do nothing: connections are closed after each exchange."""


def _import_node() -> types.ModuleType:
    """Import the node module without TensorFlow (600 MB an agent) and its `basicConfig`."""
    name = "tensorflowonspark.TFSparkNode"
    # at INFO it logs the manager's key
    logging.getLogger("tensorflowonspark").setLevel(logging.WARNING)
    if name in sys.modules:
        return sys.modules[name]
    root = logging.getLogger()
    shield = logging.NullHandler()  # basicConfig does nothing where there is a handler
    stand_in = "tensorflow" not in sys.modules
    if stand_in:
        sys.modules["tensorflow"] = types.ModuleType("tensorflow")
    root.addHandler(shield)
    try:
        module = importlib.import_module(name)
    finally:
        root.removeHandler(shield)
        if stand_in:
            del sys.modules["tensorflow"]
    return module


@contextlib.contextmanager
def _replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Set attributes, and set them back."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextlib.contextmanager
def _environment_restored() -> Iterator[None]:
    """Undo changes of the environment: Spark reuses this process for other tasks."""
    before = dict(os.environ)
    # the node would take a port or a Hadoop from them that this run has not chosen
    for name in ("TENSORFLOW_PORT", "HADOOP_PREFIX"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _fenced(plan: LaunchPlan, agent: Agent) -> Iterator[types.ModuleType]:
    """Give the node module, without what would harm this process or trust a stranger."""
    node = _import_node()
    manager_class = node.TFManager.TFManager
    start = manager_class.start

    def start_bound(manager: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - untyped library
        # the manager is a forked process that would otherwise outlive a killed agent
        start(manager, die_with_parent, (os.getpid(),), *args, **kwargs)

    with (
        _environment_restored(),
        _replaced(
            (node.reservation, "Client", _ReservationClient(plan=plan, stopping=agent.stopping)),
            (node.util, "get_ip_address", lambda: source_address(plan.control)),
            (node.util, "write_executor_id", lambda _: None),
            (
                node.gpu_info,
                "is_gpu_available",
                lambda: False,
            ),  # GPUs are Spark's to give, see TaskFacts
            (manager_class, "start", start_bound),
        ),
    ):
        try:
            yield node
        finally:
            manager, node.TFSparkNode.mgr = node.TFSparkNode.mgr, None
            if manager is not None:
                manager.shutdown()


def _form(plan: LaunchPlan, task: TaskFacts, context: BarrierTaskContext) -> None:  # noqa: ARG001 - same as the other backend's
    """Join the cluster as a TensorFlowOnSpark node and run this rank's agent inside it."""
    with (
        Agent(plan, task) as agent,
        _fenced(plan, agent) as node,
        PortHolder(ports=plan.ports) as holder,
    ):
        # the node takes this port and binds nothing itself; _fenced restores the environment
        os.environ["TENSORFLOW_PORT"] = str(holder.port)

        def main(_args: object, ctx: Any) -> None:  # noqa: ANN401 - TFNodeContext, untyped library
            agent.run(ClusterSpec.from_jobs(ctx.cluster_spec), os.environ["TF_CONFIG"])

        meta = {
            "id": f"{plan.name}-{plan.control[1]}",
            "cluster_template": {"chief": [0], "worker": list(range(1, plan.world_size))},
            "num_executors": plan.world_size,
            "default_fs": "file://",
            "working_dir": os.getcwd(),
            "server_addr": plan.control,
            "release_port": False,
        }
        node.run(main, {}, meta, tensorboard=False, log_dir=None, queues=_QUEUES, background=False)(
            iter([task.rank])
        )


class TensorFlowOnSparkBackend:
    """Launches ranks as TensorFlowOnSpark nodes.

    Args:
        spark: the session whose executors are used; they need tensorflowonspark and setuptools <
            82.
    """

    name: Final = "tensorflowonspark"

    def __init__(self, spark: SparkSession) -> None:
        """Remember the session."""
        self._spark = spark

    def launch(self, request: LaunchRequest) -> BarrierWorkerGroup:
        """Start the ranks."""
        return BarrierWorkerGroup(self._spark, self.name, _form, request)

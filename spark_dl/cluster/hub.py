"""The control channel where the driver cannot be reached: rank 0's task is the hub.

Agents talk to the hub as they talk to a driver elsewhere (same server, same codec, same secret).
The hub passes what they say to the client's mailbox and the client's orders to them:

    agents ── control channel ── hub in rank 0's task ── mailbox in the run directory ── client
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cluster.control import ControlServer, Envelope
from spark_dl.cluster.mailbox import Inbox, Outbox
from spark_dl.errors import ClusterError, SparkDLError
from spark_dl.storage import Storage
from spark_dl.storage.filesystem import join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark import BarrierTaskContext

    from spark_dl.cluster.plan import LaunchPlan

__all__ = ["Hub", "RemoteControl", "reached_control"]

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.2
#: The client signs its presence at this interval …
_ALIVE_S: Final = 5.0
#: … and the run ends when it has not done so for so long: a client that is gone wants no result.
_CLIENT_GONE_S: Final = 90.0
_UP: Final = "up"
_DOWN: Final = "down"
_PROOF: Final = "client"


class Hub:
    """Passes messages between agents and mailbox, in threads of rank 0's task.

    Args:
        plan: the launch; its `mailbox` must be the client's own folder.
        host: address of this executor that the other executors reach.

    Raises:
        ClusterError: the mailbox of the client is not to be seen from here.
    """

    def __init__(self, plan: LaunchPlan, host: str) -> None:
        """Listen for agents and for the client."""
        if not Storage(plan.mailbox).exists(join(plan.mailbox, _PROOF)):
            msg = (
                f"the run directory is not shared: the client wrote {plan.mailbox}, which the "
                "executors do not see; set runs to storage that client and executors share"
            )
            raise ClusterError(msg)
        self._stop_s = plan.timeouts.stop_s
        self._ranks = set(range(plan.world_size))
        self._orders = Inbox(join(plan.mailbox, _DOWN))
        self._reports = Outbox(join(plan.mailbox, _UP))
        self._server = ControlServer(
            bind=host,
            host=host,
            secret=plan.secret,
            world_size=plan.world_size,
            ping_s=plan.timeouts.heartbeat_s,
            ports=plan.ports,
        )
        self.address = self._server.address
        self._gone: set[int] = set()
        self._all_gone = threading.Event()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"spark_dl-hub-{target.__name__}", daemon=True)
            for target in (self._report, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def _report(self) -> None:
        """Pass what agents say to the client, in bundles."""
        while not self._over.wait(_LOOK_S):
            self._pass_on()
        self._pass_on()

    def _pass_on(self) -> None:
        bundle: list[dict[str, Any]] = []
        with contextlib.suppress(queue.Empty):
            while True:
                envelope = self._server.inbox.get_nowait()
                bundle.append({"rank": envelope.rank, "message": envelope.message})
        if bundle:
            self._reports.put(bundle)
        self._gone |= {item["rank"] for item in bundle if item["message"].get("kind") == "gone"}
        if self._gone >= self._ranks:
            self._all_gone.set()

    def _listen(self) -> None:
        """Pass the client's orders to the agents; stop them when it is gone."""
        heard = time.monotonic()
        while not self._over.wait(_LOOK_S):
            try:
                orders = self._orders.take()
            except (SparkDLError, OSError) as error:
                logger.warning("the client's orders cannot be read: %s", error)
                continue
            if orders:
                heard = time.monotonic()
            elif time.monotonic() - heard > _CLIENT_GONE_S:
                orders = [{"kind": "stop", "reason": "the client is gone"}]
                heard = time.monotonic()
            for order in orders:
                if order.get("kind") != "alive":
                    self._server.broadcast(order)

    def close(self) -> None:
        """Wait for the other agents' end, pass on their last words and stop."""
        self._all_gone.wait(self._stop_s)
        self._over.set()
        for thread in self._threads:
            thread.join(self._stop_s)
        self._server.close()


@contextlib.contextmanager
def reached_control(plan: LaunchPlan, context: BarrierTaskContext) -> Iterator[LaunchPlan]:
    """Give a task a plan whose control channel it can reach.

    Where the plan has a mailbox, rank 0 opens the hub and `allGather` tells its address; elsewhere
    the plan holds the driver's address already.

    Yields:
        The plan to go by.
    """
    if not plan.mailbox:
        yield plan
        return
    with contextlib.ExitStack() as stack:
        answer: dict[str, Any] = {}
        if context.partitionId() == 0:
            try:
                # the address of this executor as Spark's driver sees it
                host = context.getTaskInfos()[0].address.rpartition(":")[0].strip("[]")
                hub = Hub(plan, host)
                stack.callback(hub.close)
                answer["control"] = hub.address
            except Exception as error:  # noqa: BLE001 - the others must not wait for ever
                answer["error"] = str(error)
        first = json.loads(context.allGather(json.dumps(answer))[0])
        if "error" in first:
            raise ClusterError(first["error"])
        yield replace(plan, control=(str(first["control"][0]), int(first["control"][1])))


@dataclass
class RemoteControl:
    """The client's end: what `ControlServer` is to a driver that agents reach.

    Args:
        mailbox: a folder in the run directory; it is removed at the end.
    """

    mailbox: str
    inbox: queue.SimpleQueue[Envelope] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        """Leave the proof that this is the client's folder and begin to look for messages."""
        self._storage = Storage(self.mailbox)
        self._storage.make_folder(self.mailbox)
        self._storage.write_atomic(join(self.mailbox, _PROOF), "{}")
        self._reports = Inbox(join(self.mailbox, _UP))
        self._orders = Outbox(join(self.mailbox, _DOWN))
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="spark_dl-mailbox", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Nothing that an agent could reach: the hub's address is known to the tasks only."""
        return ("", 0)

    def _live(self) -> None:
        signed = 0.0
        while not self._over.wait(_LOOK_S):
            try:
                self.fetch()
                if time.monotonic() - signed >= _ALIVE_S:
                    self.broadcast({"kind": "alive"})
                    signed = time.monotonic()
            except (SparkDLError, OSError) as error:
                logger.warning("the run's mailbox cannot be reached: %s", error)

    def fetch(self) -> None:
        """Take what has come into `inbox`."""
        with self._lock:
            for item in self._reports.take():
                self.inbox.put(Envelope(rank=item["rank"], message=item["message"]))

    def broadcast(self, message: dict[str, Any]) -> None:
        """Send an order to every agent."""
        with self._lock:
            self._orders.put([message])

    def close(self) -> None:
        """Stop looking and remove the mailbox."""
        self._over.set()
        self._thread.join()
        self._storage.remove(self.mailbox)

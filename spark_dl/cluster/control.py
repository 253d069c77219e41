"""The driver's end of the control channel: a thread a connection, strangers refused and logged."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import queue
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from spark_dl.cluster.codec import Channel, ChannelClosedError, ChannelRefusedError, Message
from spark_dl.ports import bound_port

if TYPE_CHECKING:
    from types import TracebackType

    from spark_dl.ports import PortRange

__all__ = ["ControlServer", "Envelope", "Reservations"]

logger = logging.getLogger(__name__)

#: Connections whose handshake is not over; more are closed at once, so that a flood costs little.
_MAX_STRANGERS: Final = 256
#: Rest after a failed accept (too many open files): listening goes on.
_ACCEPT_PAUSE_S: Final = 0.2

#: Messages that an agent has to hear however late it connects.
_STANDING: Final = frozenset({"stop", "tokens"})


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A message from an agent, or the loss of its connection (``kind`` is then ``"gone"``)."""

    rank: int
    message: Message
    data: bytes = b""


@dataclass
class Reservations:
    """The nodes that have registered, for backends whose rendezvous goes through the driver."""

    required: int
    nodes: dict[int, Message] = field(default_factory=dict)

    def answer(self, message: Message) -> Message:
        """Answer one request; pure but for the registration itself.

        Requests are ``register`` (a node), ``query`` (are all there?) and ``nodes`` (all of them).
        """
        match message.get("kind"):
            case "register":
                node = message["node"]
                self.nodes[int(node["executor_id"])] = node
                return {"kind": "ok"}
            case "query":
                return {
                    "kind": "ready",
                    "ready": len(self.nodes) >= self.required,
                    "missing": sorted(set(range(self.required)) - set(self.nodes)),
                }
            case "nodes":
                return {"kind": "nodes", "nodes": [self.nodes[rank] for rank in sorted(self.nodes)]}
            case other:
                return {"kind": "error", "reason": f"unknown request {other!r}"}


class ControlServer:
    """Listens for the agents of one attempt.

    Agents introduce themselves with ``hello`` and their rank; what they say next arrives in
    `inbox`. A connection that introduces itself as ``reservation`` gets answers from `reservations`
    instead.

    Args:
        bind: address to listen on (``spark.driver.bindAddress``).
        host: address that executors connect to (``spark.driver.host``).
        secret: the run's secret.
        world_size: number of ranks.
        ping_s: seconds between two signs of life to the agents.
        ports: where its port must lie; by default anywhere.

    Raises:
        ResourceError: all of `ports` are taken on this host.
    """

    def __init__(
        self,
        *,
        bind: str,
        host: str,
        secret: bytes,
        world_size: int,
        ping_s: float,
        ports: PortRange | None = None,
    ) -> None:
        """Start listening on a free port."""
        self._secret = secret
        self._world_size = world_size
        self._lock = threading.Lock()
        self._agents: dict[int, Channel] = {}
        self._seen: set[int] = set()
        self._standing: dict[str, Message] = {}
        self._strangers = 0
        self._closing = False
        self._over = threading.Event()
        self.inbox: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
        self.reservations = Reservations(required=world_size)
        listening = functools.partial(_listening, bind)
        self._claim, self._socket = bound_port(ports, "the control channel", listening)
        self.address: tuple[str, int] = (host, self._socket.getsockname()[1])
        self._ping_s = ping_s
        for target in (self._listen, self._ping):
            threading.Thread(target=target, name="spark_dl-control", daemon=True).start()

    def _ping(self) -> None:
        """Tell the agents that their driver lives: one that hears nothing ends its child."""
        while not self._over.wait(self._ping_s):
            self.broadcast({"kind": "alive"})

    def _listen(self) -> None:
        while True:
            try:
                sock, peer = self._socket.accept()
            except OSError as error:
                if self._closing:
                    return
                logger.warning("control channel: accept failed: %s", error)
                self._over.wait(_ACCEPT_PAUSE_S)
                continue
            with self._lock:
                full = self._strangers >= _MAX_STRANGERS
                self._strangers += not full
            if full:
                sock.close()
                continue
            threading.Thread(
                target=self._serve,
                args=(sock, f"{peer[0]}:{peer[1]}"),
                name="spark_dl-control-peer",
                daemon=True,
            ).start()

    def _serve(self, sock: socket.socket, peer: str) -> None:
        try:
            channel = Channel.accept(sock, self._secret)
        except (ChannelRefusedError, ChannelClosedError) as error:
            logger.warning("control channel: refused %s: %s", peer, error)
            sock.close()
            return
        finally:
            with self._lock:
                self._strangers -= 1
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            hello, _ = channel.receive()
            if hello.get("kind") == "reservation":
                self._serve_reservations(channel)
            else:
                self._serve_agent(channel, hello)
        except ChannelClosedError:
            pass  # reported as "gone" where it matters
        except (
            ChannelRefusedError,
            json.JSONDecodeError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            logger.warning("control channel: dropped %s: %s", peer, error)
        finally:
            channel.close()

    def _serve_reservations(self, channel: Channel) -> None:
        while True:
            message, _ = channel.receive()
            with self._lock:
                answer = self.reservations.answer(message)
            channel.send(answer)

    def _serve_agent(self, channel: Channel, hello: Message) -> None:
        rank = int(hello["rank"])
        if not 0 <= rank < self._world_size:
            msg = f"rank {rank} is outside 0..{self._world_size - 1}"
            raise ChannelRefusedError(msg)
        with self._lock:
            if rank in self._seen:
                # Spark has resubmitted a stage that we count as lost: never two live attempts
                msg = f"rank {rank} has been here already; a second task of it must end"
                raise ChannelRefusedError(msg)
            self._seen.add(rank)
            # within the lock, so that no newer one overtakes them; a new connection has room
            for message in self._standing.values():
                channel.send(message)
            self._agents[rank] = channel
        self.inbox.put(Envelope(rank=rank, message=hello))
        try:
            while True:
                message, data = channel.receive()
                self.inbox.put(Envelope(rank=rank, message=message, data=data))
        finally:
            with self._lock:
                self._agents.pop(rank, None)
            self.inbox.put(Envelope(rank=rank, message={"kind": "gone"}))

    def broadcast(self, message: Message) -> None:
        """Send a message to every connected agent; those that are gone are skipped.

        A ``stop`` and the newest ``tokens`` are also sent to agents that connect later.
        """
        with self._lock:
            agents = list(self._agents.values())
            if message.get("kind") in _STANDING:
                self._standing[message["kind"]] = message
        for channel in agents:
            with contextlib.suppress(ChannelClosedError):
                channel.send(message)

    def close(self) -> None:
        """Stop listening and close all connections."""
        self._closing = True
        self._over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()
        if self._claim is not None:
            self._claim.close()
        with self._lock:
            agents = list(self._agents.values())
        for channel in agents:
            channel.close()

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the server."""
        self.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)

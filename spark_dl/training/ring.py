"""Sums over the ranks through a ring of plain TCP connections, for tensors in main memory.

TensorFlow's own ring goes through gRPC, which copies a tensor several times on each side: on
loopback it moves about a tenth of what the network stack can. Here a rank sends straight from its
buffer and receives straight into it. With n ranks each sends ``2 (n - 1) / n`` of the tensor: first
n - 1 rounds in which parts are summed on their way around, then n - 1 in which the sums go around.
Two ranks send each other small tensors whole, in one round, which is as much.

The order of additions depends on the number of ranks alone, and every rank gets the very bytes of
the one that added last: results are the same on all ranks and from run to run.

The connections are made by whoever knows the run's token, which travels through TensorFlow's
cluster, hence by nobody outside of it.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import queue
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from spark_dl.errors import TimeoutExpiredError, WorkerLostError
from spark_dl.ports import bound_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from spark_dl.ports import PortRange

__all__ = ["TOKEN_BYTES", "Entrance", "Ring"]

TOKEN_BYTES: Final = 32
#: A stranger that says nothing is left alone after so long.
_HANDSHAKE_S: Final = 5.0
#: Sums are made in pieces that stay in the cache between the network and the addition.
_PIECE_BYTES: Final = 1 << 18
#: So much is sent by the thread that receives too; loopback's windows hold it.
_ALONE_BYTES: Final = 1 << 17
_PAIR: Final = 2
_HELLO: Final = struct.Struct(f">{TOKEN_BYTES}sI")
_SETTING: Final = "cluster.start_timeout_s"
#: After how many seconds of silence the kernel asks a peer, how many lie between two questions, and
#: how many without an answer make it dead.
_KEEPALIVE: Final = (10, 5, 4)


class Entrance:
    """Where the rank before this one in the ring will come in.

    Args:
        host: address that the others reach this rank at.
        ports: where its port must lie; by default anywhere.

    Raises:
        ResourceError: all of `ports` are taken on this host.
    """

    def __init__(self, host: str, ports: PortRange | None = None) -> None:
        """Listen on a free port of the address, of all where it is not this host's own."""
        listening = functools.partial(_listening, host)
        self._claim, self._server = bound_port(ports, "a worker's ring", listening)
        self.port: int = self._server.getsockname()[1]

    def admit(self, token: bytes, rank: int, *, timeout_s: float) -> socket.socket:
        """Return the connection of a rank; whoever does not know the token is turned away.

        Args:
            token: the run's.
            rank: who is to come.
            timeout_s: deadline.

        Raises:
            TimeoutExpiredError: the rank did not come in time.
        """
        known: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(token, rank, known), daemon=True).start()
        try:
            return known.get(timeout=timeout_s)
        except queue.Empty:
            what = f"rank {rank} to join the ring"
            raise TimeoutExpiredError.waiting_for(what, timeout_s, _SETTING) from None

    def _listen(self, token: bytes, rank: int, known: queue.SimpleQueue[socket.socket]) -> None:
        def meet(connection: socket.socket) -> None:
            if _knows(connection, token, rank):
                known.put(connection)
            else:
                connection.close()

        with contextlib.suppress(OSError):  # closed: nobody is waited for any more
            while True:
                connection, _ = self._server.accept()
                # one that says nothing keeps nobody else waiting
                threading.Thread(target=meet, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # ends an `accept` too
        self._server.close()
        if self._claim is not None:
            self._claim.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=16)
    except OSError:  # as a container sees it whose host forwards its ports
        return socket.create_server(("", port), family=family, backlog=16)


def _knows(connection: socket.socket, token: bytes, rank: int) -> bool:
    connection.settimeout(_HANDSHAKE_S)
    hello = bytearray(_HELLO.size)
    try:
        _receive(connection, memoryview(hello))
    except OSError:
        return False
    told, number = _HELLO.unpack(hello)
    return hmac.compare_digest(told, token) and number == rank


class Ring:
    """The connections of one rank: to the next one, and from the one before.

    Args:
        rank: this rank.
        world_size: number of ranks, at least 2.
        onwards: connected to the next rank.
        inwards: connected to the rank before.
    """

    def __init__(
        self, rank: int, world_size: int, *, onwards: socket.socket, inwards: socket.socket
    ) -> None:
        """Start the thread that sends."""
        self.rank = rank
        self.world_size = world_size
        self._onwards = _ready(onwards)
        self._inwards = _ready(inwards)
        self._outbox: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._sent: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        #: what broke the ring; `None` while it holds
        self.lost: WorkerLostError | None = None
        #: seconds spent in sums so far, most of them waiting where another rank is slower
        self.summed_s = 0.0
        threading.Thread(target=self._send, name="spark_dl-ring", daemon=True).start()

    @classmethod
    def join(
        cls,
        rank: int,
        addresses: Sequence[tuple[str, int]],
        entrance: Entrance,
        token: bytes,
        *,
        timeout_s: float,
    ) -> Self:
        """Connect to the next rank and let the one before in.

        Args:
            rank: this rank.
            addresses: of all ranks' entrances.
            entrance: this rank's.
            token: the run's.
            timeout_s: deadline.

        Raises:
            TimeoutExpiredError: a neighbour did not come in time, or cannot be reached.
        """
        size = len(addresses)
        following = (rank + 1) % size
        try:
            onwards = socket.create_connection(addresses[following], timeout=timeout_s)
        except OSError as error:
            host, port = addresses[following]
            what = f"rank {following} at {host}:{port} ({error})"
            raise TimeoutExpiredError.waiting_for(what, timeout_s, _SETTING) from error
        onwards.sendall(_HELLO.pack(token, rank))
        inwards = entrance.admit(token, (rank - 1) % size, timeout_s=timeout_s)
        entrance.close()
        return cls(rank, size, onwards=onwards, inwards=inwards)

    def sum(self, flat: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return the sum over the ranks; all ranks call it, in the same order.

        Args:
            flat: ``[n]``, the same dtype and length on all ranks; left as it is.

        Returns:
            a new array, equal on all ranks to the bit.

        Raises:
            WorkerLostError: a neighbour is gone.
        """
        begun = time.monotonic()
        mine = np.ascontiguousarray(flat)
        with self._lock, self._noting_who_is_lost():
            at_once = self.world_size == _PAIR and mine.nbytes <= _ALONE_BYTES
            total = self._sum_of_two(mine) if at_once else self._sum_around(mine)
        self.summed_s += time.monotonic() - begun
        return total

    def _sum_of_two(self, mine: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Send all and add what comes: as many bytes as through a ring, in one round."""
        total = np.empty_like(mine)
        self._exchange(mine, total, plus=mine)
        return total

    def _sum_around(self, mine: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        total, size = mine.copy(), self.world_size
        parts = np.array_split(total, size)
        for done in range(size - 1):
            into = parts[(self.rank - done - 1) % size]
            self._exchange(parts[(self.rank - done) % size], into, plus=into)
        for done in range(size - 1):
            into = parts[(self.rank - done) % size]
            self._exchange(parts[(self.rank - done + 1) % size], into)
        return total

    def _exchange(
        self,
        going: npt.NDArray[np.generic],
        into: npt.NDArray[np.generic],
        *,
        plus: npt.NDArray[np.generic] | None = None,
    ) -> None:
        """Send one array to the next rank while another comes in from the one before.

        Args:
            going: what is sent.
            into: takes what comes in.
            plus: is added to that.
        """
        if going.nbytes <= _ALONE_BYTES:
            self._fill(into, plus, functools.partial(self._swap, _raw(going)))
            return
        self._outbox.put(_raw(going))
        receive = functools.partial(_receive, self._inwards)
        length = max(_PIECE_BYTES // into.itemsize, 1)
        for start in range(0, into.size, length):
            piece = slice(start, start + length)
            self._fill(into[piece], None if plus is None else plus[piece], receive)
        if (error := self._sent.get()) is not None:
            raise error

    def _fill(
        self,
        into: npt.NDArray[np.generic],
        plus: npt.NDArray[np.generic] | None,
        receive: Callable[[memoryview], None],
    ) -> None:
        """Have an array received, and add to it; see `_exchange`."""
        if plus is None:
            receive(_raw(into))
            return
        theirs = np.empty_like(into)
        receive(_raw(theirs))
        # in the order of the ranks: which of two NaNs a sum keeps depends on it
        first, second = (plus, theirs) if self.rank == 0 else (theirs, plus)
        np.add(first, second, out=into)

    def _swap(self, going: memoryview, coming: memoryview) -> None:
        """Exchange without the thread that sends, whose waking takes longer than what is small."""
        going = _sent_now(self._onwards, going)
        while going and coming:  # the kernels' buffers did not hold it
            ready = select.poll()
            ready.register(self._onwards, select.POLLOUT)
            ready.register(self._inwards, select.POLLIN)
            ready.poll()
            going = _sent_now(self._onwards, going)
            coming = _received_now(self._inwards, coming)
        self._onwards.sendall(going)
        _receive(self._inwards, coming)

    def _send(self) -> None:
        while True:
            view = self._outbox.get()
            try:
                self._onwards.sendall(view)
            except OSError as error:
                self._sent.put(error)
            else:
                self._sent.put(None)

    @contextlib.contextmanager
    def _noting_who_is_lost(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            before, after = (self.rank - 1) % self.world_size, (self.rank + 1) % self.world_size
            msg = f"rank {before} or rank {after}, which this rank sums with, is gone: {error}"
            self.lost = WorkerLostError(msg)
            raise self.lost from error

    def close(self) -> None:
        """Leave the ring; the neighbours' next sum fails."""
        self._onwards.close()
        self._inwards.close()


def _raw(array: npt.NDArray[np.generic]) -> memoryview:
    return array.view(np.uint8).data


def _sent_now(connection: socket.socket, view: memoryview) -> memoryview:
    """Send what the kernel takes at once, and return the rest."""
    with contextlib.suppress(BlockingIOError):
        while view:
            view = view[connection.send(view, socket.MSG_DONTWAIT) :]
    return view


def _received_now(connection: socket.socket, view: memoryview) -> memoryview:
    """Take what has come, and return what is still to be filled.

    Raises:
        ConnectionError: the other side has closed.
    """
    with contextlib.suppress(BlockingIOError):
        while view:
            view = view[_received(connection, view, socket.MSG_DONTWAIT) :]
    return view


def _receive(connection: socket.socket, view: memoryview) -> None:
    """Fill a buffer.

    Raises:
        ConnectionError: the other side has closed.
    """
    while view:
        view = view[_received(connection, view) :]


def _received(connection: socket.socket, view: memoryview, flags: int = 0) -> int:
    received = connection.recv_into(view, 0, flags)
    if not received:
        msg = "it has closed the connection"
        raise ConnectionError(msg)
    return received


def _ready(connection: socket.socket) -> socket.socket:
    """Have a connection wait as long as its peer lives, and send small parts at once."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    for name, value in zip(names, _KEEPALIVE, strict=True):
        connection.setsockopt(socket.IPPROTO_TCP, name, value)
    return connection

"""Who is in the cluster: addresses of the ranks, and the TF_CONFIG that follows from them."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ClusterSpec", "PortHolder", "source_address"]


@dataclass(frozen=True)
class ClusterSpec:
    """The addresses of a training cluster, in order of rank; rank 0 is the chief.

    Attributes:
        addresses: ``host:port`` of each rank.
    """

    addresses: tuple[str, ...]

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return len(self.addresses)

    @classmethod
    def from_jobs(cls, jobs: dict[str, list[str]]) -> ClusterSpec:
        """Read TensorFlow's form, ``{"chief": [address], "worker": [address, …]}``."""
        return cls((*jobs["chief"], *jobs.get("worker", [])))

    def tf_config(self, rank: int) -> str:
        """Return the value of TF_CONFIG for one rank.

        The format is that of `tf.distribute.cluster_resolver.TFConfigClusterResolver`.
        """
        cluster: dict[str, Any] = {"chief": list(self.addresses[:1])}
        if self.world_size > 1:
            cluster["worker"] = list(self.addresses[1:])
        task = {"type": "chief", "index": 0} if rank == 0 else {"type": "worker", "index": rank - 1}
        return json.dumps({"cluster": cluster, "task": task})

    def local_rank(self, rank: int) -> int:
        """Return how many lower ranks live on the same host address."""
        hosts = [address.rpartition(":")[0] for address in self.addresses]
        return hosts[:rank].count(hosts[rank])


def source_address(target: tuple[str, int]) -> str:
    """Return the own address from which `target` is reached; no packet is sent.

    It is the right one to publish: several interfaces, a loopback entry in ``/etc/hosts`` or a host
        name that others
    cannot resolve do not matter.
    """
    family, kind, _, _, address = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


class PortHolder:
    """Holds a port from its choice until the child has bound it.

    Both bind with SO_REUSEPORT (the child because of ``TF_GRPC_REUSE_PORT``); the holder never
    listens, so that it gets no connection. Sockets of other users, and those without SO_REUSEPORT,
    cannot bind the port meanwhile.

    Args:
        port: a port chosen before; 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        """Bind the port."""
        self._socket = socket.socket(
            socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        )
        if self._socket.family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("", port))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        """Return the holder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the port."""
        self._socket.close()

"""Who is in the cluster: addresses of the ranks, and the TF_CONFIG that follows from them."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from spark_dl.errors import ClusterError
from spark_dl.ports import bound_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from spark_dl.ports import PortRange

__all__ = ["ClusterSpec", "PortHolder", "join_address", "source_address"]

#: An address that is nowhere (RFC 5737): the way there is the default route. Nothing is sent.
_ELSEWHERE: Final = ("192.0.2.1", 9)


@dataclass(frozen=True)
class ClusterSpec:
    """The addresses of a training cluster, in order of rank; rank 0 is the chief.

    Attributes:
        addresses: ``host:port`` of each rank.
    """

    addresses: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that the ranks can reach each other at what they have published.

        Raises:
            ClusterError: some published a loopback address, others did not.
        """
        local = [_is_loopback(_host(address)) for address in self.addresses]
        if any(local) and not all(local):
            rank = local.index(True)
            msg = (
                f"rank {rank} published the loopback address {self.addresses[rank]}, which the "
                f"others ({', '.join(self.addresses)}) cannot reach: set spark.driver.host to an "
                "address of the network that the executors share"
            )
            raise ClusterError(msg)

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

    def environ(self, rank: int, around: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that one rank's TensorFlow needs.

        Without ``no_grpc_proxy`` it would go to its neighbours by a proxy, where ``http_proxy`` is
        set, and wait there for ever (`gRPC's variables
        <https://grpc.github.io/grpc/core/md_doc_environment_variables.html>`_).

        Args:
            rank: the rank.
            around: the variables that its process has otherwise.
        """
        direct = around.get("no_grpc_proxy") or around.get("no_proxy")
        hosts = dict.fromkeys(_host(address) for address in self.addresses)
        return {
            "TF_CONFIG": self.tf_config(rank),
            "no_grpc_proxy": ",".join(filter(None, [direct, *hosts])),
        }

    def local_rank(self, rank: int) -> int:
        """Return how many lower ranks live on the same host address."""
        hosts = [_host(address) for address in self.addresses]
        return hosts[:rank].count(hosts[rank])


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def join_address(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def source_address(target: tuple[str, int]) -> str:
    """Return the own address from which `target` is reached; no packet is sent.

    It is the right one to publish: several interfaces, a loopback entry in ``/etc/hosts`` or a host
    name that others cannot resolve do not matter.
    """
    source = _source(target)
    if _is_loopback(source) and not _is_loopback(target[0]):
        # a task beside the driver, whose host name /etc/hosts maps to loopback: the others need
        # the address of the network
        with contextlib.suppress(OSError):
            source = _source(_ELSEWHERE)
    return source


def _source(target: tuple[str, int]) -> str:
    family, kind, _, _, address = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _held_port(port: int) -> socket.socket:
    """Return a socket that is bound to a port of all addresses and leaves room for its heir."""
    sock = socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


class PortHolder:
    """Holds a port from its choice until the child has bound it.

    Both bind with SO_REUSEPORT (the child because of ``TF_GRPC_REUSE_PORT``); the holder never
    listens, so that it gets no connection. Sockets of other users, and those without SO_REUSEPORT,
    cannot bind the port meanwhile.

    Args:
        ports: where it must lie; by default anywhere.

    Raises:
        ResourceError: all of `ports` are taken on this host.
    """

    def __init__(self, ports: PortRange | None = None) -> None:
        """Bind the port."""
        self._claim, self._socket = bound_port(ports, "a worker", _held_port)
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
        if self._claim is not None:
            self._claim.close()

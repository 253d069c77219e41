"""Ports within a range that a firewall lets through (``cluster.ports``).

Two of our processes on one host never take the same port, though both may only be about to listen:
who wants a port holds a name of the kernel's for it (an abstract Unix socket, one name space for
each network namespace), which is free again when its process ends, however it ends.
"""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from spark_dl.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

__all__ = ["PortClaim", "PortRange", "bound_port"]

_RANGE: Final = re.compile(r"(\d{1,5})-(\d{1,5})")
_LOWEST: Final = 1024
_HIGHEST: Final = 65535
_TAKEN: Final = (errno.EADDRINUSE, errno.EACCES)


@dataclass(frozen=True)
class PortRange:
    """A range of ports, both ends included.

    Example:
        >>> PortRange.parse("40000-40010").high
        40010
    """

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Read ``low-high``.

        Raises:
            ValueError: the text is no range of ports.
        """
        found = _RANGE.fullmatch(text)
        if found is None or not _LOWEST <= int(found[1]) <= int(found[2]) <= _HIGHEST:
            msg = f"expected a range within {_LOWEST}-{_HIGHEST} such as 40000-40010, got {text!r}"
            raise ValueError(msg)
        return cls(int(found[1]), int(found[2]))

    def __iter__(self) -> Iterator[int]:
        """Iterate over the ports."""
        return iter(range(self.low, self.high + 1))

    def __str__(self) -> str:
        """Return ``low-high``."""
        return f"{self.low}-{self.high}"

    def exhausted(self, what: str) -> ResourceError:
        """Return the error that none of the ports is free on this host."""
        msg = (
            f"no port of cluster.ports {self} is free on {socket.gethostname()} for {what}: a host "
            "needs two for each of its workers, the driver's one for the control channel and one "
            "for TensorBoard; widen the range, or end what holds its ports"
        )
        return ResourceError(msg)


class PortClaim:
    """A port of a range that no other process of ours takes as long as this is open.

    Args:
        ports: the range.
        what: what the port is for, for the error.
        usable: whether a port serves the purpose; by default that nobody has bound it.

    Raises:
        ResourceError: none is free.
    """

    def __init__(
        self, ports: PortRange, what: str, usable: Callable[[int], bool] | None = None
    ) -> None:
        """Take the first port that is free."""
        for port in ports:
            name = _held(port)
            if name is None:
                continue
            if (usable or _is_free)(port):
                self.port, self._name = port, name
                return
            name.close()
        raise ports.exhausted(what)

    def __enter__(self) -> Self:
        """Return the claim."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let others take the port."""
        self.close()

    def close(self) -> None:
        """Let others take the port."""
        self._name.close()


def bound_port(
    ports: PortRange | None, what: str, bind: Callable[[int], socket.socket]
) -> tuple[PortClaim | None, socket.socket]:
    """Claim a port and bind it; where somebody else binds it first, it is the next one.

    Args:
        ports: the range; `None`: the kernel chooses, and there is nothing to claim.
        what: what the port is for, for the error.
        bind: returns a socket that is bound to a port.

    Raises:
        ResourceError: none is free.
    """
    if ports is None:
        return None, bind(0)
    bound: list[socket.socket] = []

    def serves(port: int) -> bool:
        if not _is_free(port):
            return False
        try:
            bound.append(bind(port))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    claim = PortClaim(ports, what, serves)
    return claim, bound[0]


def _held(port: int) -> socket.socket | None:
    """Return the kernel's name of a port, `None` where another process has it."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0spark_dl-port-{port}")
    except OSError:
        name.close()
        return None
    return name


def _is_free(port: int) -> bool:
    """Whether nobody has bound a port; connections of the past that linger do not count."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
    return True

"""Hosts of their own on one machine: network namespaces on a bridge, with what real hosts have.

Each has its own address and host name, a second network that leads nowhere (with the same address
on all of them), its own name on loopback in ``/etc/hosts``, IPv6 beside IPv4, and one folder that
all have mounted at `SHARED`. Needs root and iproute2. Names and addresses are of this process, and
what a process that died has left is removed by the next.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusters.line import Line, line_between

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

SHARED = "/mnt/spark-dl"
IP = shutil.which("ip") or "/sbin/ip"
_DEAD_END = "192.168.254.5/24"
_NAME = re.compile(r"sdl(\d+)[b-]")


def mounted(shared: str, *words: str, name: str = "host") -> list[str]:
    """Return a command that runs words where the shared folder is mounted, on this network."""
    script = (
        f'hostname {name}; mount -t tmpfs none /mnt; mkdir {SHARED}; mount --bind "$0" {SHARED}; '
        'exec "$@"'
    )
    return ["/usr/bin/unshare", "--uts", "--mount", "/bin/bash", "-euc", script, shared, *words]


@dataclass(frozen=True)
class Host:
    """One of them."""

    name: str
    namespace: str
    bridge: str
    address: str
    shared: str

    def command(self, *words: str) -> list[str]:
        """Return a command that runs words on this host."""
        return [IP, "netns", "exec", self.namespace, *mounted(self.shared, *words, name=self.name)]

    def cut(self) -> None:
        """Take its cable out."""
        _ip("link", "set", self.namespace, "down")

    def mend(self) -> None:
        """Put its cable in again."""
        _ip("link", "set", self.namespace, "up")

    @contextlib.contextmanager
    def refused(self, other: Host, *but: str) -> Iterator[None]:
        """Let no connection be made between this host and another's ports, but for some ranges."""
        ports = [("lookup", "main", way, span) for way in ("dport", "sport") for span in but]
        rules = [*ports, ("prohibit", "dport", "1024-65534")]
        with contextlib.ExitStack() as undo:
            for preference, (*then, way, span) in enumerate(rules, start=1000):
                rule = ("pref", str(preference), "to", f"{other.address}/32", "ipproto", "tcp")
                _ip("-n", self.namespace, "rule", "add", *rule, way, span, *then)
                undo.callback(_ip, "-n", self.namespace, "rule", "del", "pref", str(preference))
            yield

    def line(self) -> AbstractContextManager[Line]:
        """Give a line between its cable and the other hosts, to be slow or lossy; it is whole."""
        return line_between(self.namespace, self.bridge, _ip)

    def pids(self) -> set[int]:
        """Return the processes that run on it."""
        return {int(pid) for pid in _ip("netns", "pids", self.namespace).split()}

    def start(
        self, *words: str, environ: Mapping[str, str], log: Path, folder: str = SHARED
    ) -> subprocess.Popen[str]:
        """Start words on this host, as a session of its own."""
        with open(log, "w") as out:
            return subprocess.Popen(
                self.command("bash", "-c", f'cd {folder}; exec "$@"', "_", *words),
                env=dict(environ),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )


def why_not() -> str | None:
    """Return why there can be no such hosts here, `None` if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.path.exists(IP) or shutil.which("unshare") is None:
        return "network namespaces need iproute2 and util-linux"
    probe = f"sdl{os.getpid()}-probe"
    done = subprocess.run([IP, "netns", "add", probe], capture_output=True, check=False)
    if done.returncode:
        return f"no network namespace can be made here: {done.stderr.decode().strip()}"
    _ip("netns", "del", probe)
    return None


@contextlib.contextmanager
def hosts(names: Sequence[str], shared: Path) -> Iterator[dict[str, Host]]:
    """Give hosts that share a folder and reach each other; they are removed at the end."""
    _sweep()
    prefix = f"sdl{os.getpid()}"
    network = _free_network()
    bridge = f"{prefix}b"
    made = {
        name: Host(name, f"{prefix}-{n}", bridge, f"{network}.{10 + n}", str(shared))
        for n, name in enumerate(names)
    }
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{network}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for host in made.values():
            _connect(host, bridge, network)
            _write_names(host, made)
        yield made
    finally:
        _remove(prefix)


def _connect(host: Host, bridge: str, network: str) -> None:
    space = host.namespace
    _ip("netns", "add", space)
    _ip("link", "add", space, "type", "veth", "peer", "name", "eth1", "netns", space)
    _ip("link", "set", space, "master", bridge, "up")
    # eth0 comes first to whoever takes the first interface, and leads nowhere
    _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", "end0")
    _ip("-n", space, "addr", "add", _DEAD_END, "dev", "eth0")
    _ip("-n", space, "addr", "add", f"{host.address}/24", "dev", "eth1")
    last = host.address.rpartition(".")[2]
    _ip("-n", space, "addr", "add", f"fd00:5d1::{last}/64", "dev", "eth1", "nodad")
    for device in ("lo", "eth0", "end0", "eth1"):
        _ip("-n", space, "link", "set", device, "up")
    _ip("-n", space, "route", "add", "default", "via", f"{network}.1")


def _write_names(host: Host, all_hosts: Mapping[str, Host]) -> None:
    """Write what `ip netns exec` lays over /etc: own name on loopback, as Debian does, no DNS."""
    folder = Path("/etc/netns") / host.namespace
    folder.mkdir(parents=True)
    lines = ["127.0.0.1 localhost", "::1 localhost", f"127.0.1.1 {host.name}"]
    lines += [f"{other.address} {other.name}" for other in all_hosts.values() if other != host]
    (folder / "hosts").write_text("\n".join(lines) + "\n")
    # answers at once that there is nobody; else each JVM waits minutes for a name server
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")


def _free_network() -> str:
    routes = _ip("-4", "route", "show")
    start = os.getpid() % 250
    for n in range(250):
        network = f"10.{201 + (start + n) % 50}.{(start * 7 + n) % 250}"
        if f"{network.rpartition('.')[0]}." not in routes:
            return network
    msg = f"no network is free: {routes}"
    raise RuntimeError(msg)


def _sweep() -> None:
    """Remove what processes have left that are dead."""
    left = _ip("netns", "list") + _ip("-o", "link", "show")
    for pid in set(_NAME.findall(left)):
        if not os.path.exists(f"/proc/{pid}"):
            _remove(f"sdl{pid}")


def _remove(prefix: str) -> None:
    for line in _ip("netns", "list").splitlines():
        space = line.split()[0]
        if space.startswith(f"{prefix}-"):
            for pid in _ip("netns", "pids", space).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            _ip("netns", "del", space)
            for device in (space, f"{space}b"):  # usually gone already
                _ip("link", "del", device, check=False)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
    _ip("link", "del", f"{prefix}b", check=False)
    with contextlib.suppress(OSError):
        os.rmdir("/etc/netns")


def _ip(*words: str, check: bool = True) -> str:
    done = subprocess.run([IP, *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        msg = f"ip {' '.join(words)}: {done.stderr.strip()}"
        raise RuntimeError(msg)
    return done.stdout

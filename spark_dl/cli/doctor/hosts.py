"""Checks of hosts and what lies between them: storage, ports, clocks, disks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spark_dl.cli.doctor.facts import PathFacts
from spark_dl.cli.doctor.findings import Check, Finding, Level, error, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spark_dl.cli.doctor.facts import Facts, Room

__all__ = ["HOSTS"]

_MIB: Final = 1 << 20
_SHM_BYTES: Final = 64 * _MIB
_LITTLE_DISK_BYTES: Final = 1024 * _MIB
_NO_DISK_BYTES: Final = 100 * _MIB
#: Times in metrics and heartbeats of different hosts are compared.
_SKEW_S: Final = 5.0
#: Kerberos refuses at five minutes; a run's heartbeat counts as silence after two.
_BAD_SKEW_S: Final = 120.0


def _storage_driver(facts: Facts) -> Finding:
    if not facts.storage:
        return Finding(level=Level.SKIPPED, text="no config, hence no paths: give --config")
    for path, problem in facts.storage.items():
        if problem is not None:
            return error(f"the driver cannot use {path}: {problem}", _path_remedy(path))
    return ok(f"the driver can use {', '.join(facts.storage)}")


def _storage_executors(facts: Facts) -> Finding:
    tried = {path for executor in facts.executors for path in executor.paths}
    usable = [path for path, problem in facts.storage.items() if problem is None and path in tried]
    if not usable:
        return Finding(level=Level.SKIPPED, text="no path that the driver can use")
    for executor in facts.executors:
        for path in usable:
            result = executor.paths.get(path, PathFacts())
            if not (result.read or result.write):
                continue
            verb = "read what the driver wrote to" if result.read else "write"
            text = f"{executor.host} cannot {verb} {path}: {result.read or result.write}"
            return error(text, _path_remedy(path))
    return ok(f"the executors read and write {', '.join(usable)}")


def _path_remedy(path: str) -> str:
    if "://" in path:
        scheme = path.partition("://")[0]
        return f"see that the client of {scheme}:// is installed and has credentials"
    return (
        f"make {path} a folder that driver and executors have mounted and may write (NFS, a "
        "volume), or take a URI such as hdfs://"
    )


def _driver_port(facts: Facts) -> Finding:
    for executor in facts.executors:
        if executor.driver_problem is not None:
            return error(
                f"{executor.host} cannot reach the driver: {executor.driver_problem}",
                "set spark.driver.host to an address of this host that executors reach and "
                "spark.driver.bindAddress to 0.0.0.0, and open the ports towards it "
                "(cluster.ports names a range for a firewall)",
            )
    if all(executor.skew_s is None for executor in facts.executors):
        return Finding(level=Level.SKIPPED, text="on Connect the first worker is the others' hub")
    return ok("the executors reach the driver")


def _peers(facts: Facts) -> Finding:
    tried = [executor for executor in facts.executors if executor.peer_problems is not None]
    for executor in tried:
        if executor.peer_problems:
            return error(
                f"{executor.host} cannot reach {executor.peer_problems[0]}",
                "workers talk to each other: open the ports between the executors' hosts "
                "(cluster.ports names a range for a firewall)",
            )
    if not tried:
        return Finding(level=Level.SKIPPED, text="needs a barrier stage, which did not run")
    return ok("the executors reach each other")


def _port_range(facts: Facts) -> Finding:
    span = facts.wishes.ports
    if span is None:
        return ok("any port may be used")
    ports = f"of the ports {span[0]}-{span[1]}"
    remedy = (
        "widen cluster.ports, or end what holds them: a host needs two for each of its workers, "
        "the driver's one for the control channel and one for TensorBoard"
    )
    if facts.driver.free_ports == 0:
        return error(f"{ports} none is free on {facts.driver.host} for the driver", remedy)
    least = min(facts.executors, key=lambda e: (e.free_ports or 0) - 2 * facts.workers_on(e.host))
    free, workers = least.free_ports or 0, facts.workers_on(least.host)
    text = f"{ports} {free or 'none'} {'are' if free > 1 else 'is'} free on {least.host}"
    if free < workers:
        return error(f"{text} for {workers} workers", remedy)
    if free < 2 * workers:
        return warning(f"{text}: gradients go through TensorFlow, which is slower", remedy)
    return ok(text)


def _clock(facts: Facts) -> Finding:
    skews = [(abs(e.skew_s), e) for e in facts.executors if e.skew_s is not None]
    if not skews:
        return Finding(level=Level.SKIPPED, text="needs executors that reach the driver")
    worst, executor = max(skews, key=lambda item: item[0])
    text = f"the clock of {executor.host} differs from the driver's by {worst:.1f} s"
    remedy = f"synchronise the clocks (chrony, NTP) of {executor.host} and of the driver"
    if worst > _BAD_SKEW_S:
        return error(text, remedy)
    if worst > _SKEW_S:
        return warning(text, remedy)
    return ok(f"clocks differ by {worst * 1000:.0f} ms at most")


def _shared_memory(facts: Facts) -> Finding:
    return _room(
        facts,
        ((host.host, "/dev/shm", host.shm) for host in facts.executors),  # noqa: S108 - its name
        little=_SHM_BYTES,
        least=0,
        remedy="mount it larger: mount -o remount,size=1g /dev/shm (containers: --shm-size=1g)",
    )


def _local_disk(facts: Facts) -> Finding:
    return _room(
        facts,
        (
            (host.host, folder, room)
            for host in facts.executors
            for folder, room in host.disks.items()
        ),
        little=_LITTLE_DISK_BYTES,
        least=_NO_DISK_BYTES,
        remedy="free it, or let spark.local.dir (YARN: yarn.nodemanager.local-dirs) name folders "
        "with room that may be written",
    )


def _room(
    facts: Facts, rooms: Iterator[tuple[str, str, Room]], *, little: int, least: int, remedy: str
) -> Finding:
    smallest, where = None, ""
    for host, folder, room in rooms:
        if room.problem is not None:
            return error(f"{folder} on {host} cannot be written: {room.problem}", remedy)
        if smallest is None or room.free_bytes < smallest:
            smallest, where = room.free_bytes, f"{folder} on {host}"
    if smallest is None:
        return Finding(level=Level.SKIPPED, text=f"{len(facts.executors)} tasks named no folder")
    text = f"{where} has {smallest // _MIB:,} MiB left"
    if smallest < least:
        return error(text, remedy)
    return warning(text, remedy) if smallest < little else ok(text)


HOSTS: Final = (
    Check(name="storage, driver", judge=_storage_driver),
    Check(name="storage, executors", judge=_storage_executors, needs="executors"),
    Check(name="driver port", judge=_driver_port, needs="executors"),
    Check(name="executor ports", judge=_peers, needs="executors"),
    Check(name="port range", judge=_port_range, needs="executors"),
    Check(name="clocks", judge=_clock, needs="executors"),
    Check(name="shared memory", judge=_shared_memory, needs="executors"),
    Check(name="local disk", judge=_local_disk, needs="executors"),
)

"""Trainings whose workers look around (`clusters/watch.py`): what they saw."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

_WATCH = Path(__file__).with_name("watch.py")
_TAIL = """
_build = {function}


def {function}(spec, params):
    watch({folder!r})
    return _build(spec, params)
"""
REFUSED = "the peer does not hold the run's secret"


def watching(model: str, folder: str, function: str = "build") -> str:
    """Return a user's model that tells in a folder, as its worker has it, what it sees."""
    return model + _WATCH.read_text() + _TAIL.format(folder=folder, function=function)


def forget(folder: Path) -> None:
    """Remove what workers of an earlier training saw."""
    for path in folder.glob("watched-*.json"):
        path.unlink()


def seen(folder: Path) -> list[dict]:
    """Return what each worker saw."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("watched-*.json"))]


def check_channel(folder: Path, log: str, *, workers: int = 2) -> None:
    """Hold a control channel against what it promises: one interface, and nothing for strangers.

    Args:
        folder: where the workers told what they saw.
        log: of the process that listens (of a driver in client mode Spark hands on on stdout).
        workers: how many there were.
    """
    told = seen(folder)
    assert len(told) >= workers  # one that was lost and came back told twice
    for facts in told:
        channel = facts["channel"]
        # the address by which it is reached: not all interfaces, and no other one
        assert channel["listens"] == [channel["reached"]], channel
        others = [ipaddress.ip_address(ip) for ip, _ in channel["beside_it"]]
        assert all(ip.is_loopback for ip in others), channel["beside_it"]
        # a stranger is told nothing but a nonce
        assert facts["answers"] == ["", "", ""], facts["answers"]
    assert not (folder / "pwned").exists()
    assert log.count(f": {REFUSED}") == 3 * len(told), log[-8000:]


def check_board(folder: Path) -> None:
    """Hold the driver's children, of which TensorBoard listens, against their promise: loopback."""
    for facts in seen(folder):
        below = facts["channel"]["below_it"]
        assert below
        assert all(ipaddress.ip_address(ip).is_loopback for ip, _ in below), below

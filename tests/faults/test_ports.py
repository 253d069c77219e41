"""Somebody else wants the ports of a run, from their choice on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from faults.model import DEADLINE_S
from faults.processes import listens_at, strike

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

#: Has the first port of a range, and goes for each other that a run has chosen, seen by the
#: kernel's name of it, until its input ends.
STRANGER = r"""
import json, re, select, socket, sys

low, high = map(int, sys.argv[1:])
tried, taken = set(), {low: socket.create_server(("", low))}
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    with open("/proc/net/unix") as names:
        chosen = {int(port) for port in re.findall(r"@spark_dl-port-(\d+)", names.read())}
    for port in chosen & set(range(low, high + 1)) - set(taken):
        tried.add(port)
        try:
            taken[port] = socket.create_server(("", port))
        except OSError:
            pass
print(json.dumps({"tried": sorted(tried), "taken": sorted(taken)}))
"""


@pytest.fixture
def span(free_ports):
    return free_ports(12)


@pytest.fixture
def stranger(span):
    """A process that wants the ports; call it to end it, and learn which it has tried and got."""
    command = [sys.executable, "-c", STRANGER, *map(str, span)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"

        def told():
            return json.loads(process.communicate(timeout=DEADLINE_S)[0])

        yield told
        process.kill()


def test_ports_are_wanted_by_others_between_choice_and_bind(
    start, as_if_nothing_happened, span, stranger
):
    """Those of the first try wait, held, for the second one's processes."""
    low, high = span
    caught = start(config={"cluster": {"ports": f"{low}-{high}"}})
    children = caught.children()
    own = [listens_at(pid) for pid in children]
    strike(children[1])
    as_if_nothing_happened(caught, caught.result())
    found = stranger()
    for ports in own:
        assert ports
        assert ports <= set(range(low, high + 1))
        assert ports <= set(found["tried"]) - set(found["taken"])
    assert low in found["taken"]

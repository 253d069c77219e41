"""Appended to a user's model: says where each worker was when it built the model."""

import json
import os
import socket

_build = build  # noqa: F821 (the user's, above)


def _sockets(pid):
    """Return local and remote addresses of a process's TCP sockets, with their state."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as lines:
            rows = [line.split() for line in list(lines)[1:]]
        found += [row[1:4] for row in rows if f"socket:[{row[9]}]" in inodes]
    return found


def _port(address):
    return int(address.rpartition(":")[2], 16)


def build(spec, params):
    own, agent = _sockets("self"), _sockets(os.getppid())
    facts = {
        "host": socket.gethostname(),
        "cluster": json.loads(os.environ["TF_CONFIG"])["cluster"],
        "listening": sorted({_port(local) for local, _, state in own if state == "0A"}),
        # to other hosts: loopback is 0100007F, or ends so where it is mapped into IPv6
        "agent_talks_to": sorted(
            {
                _port(remote)
                for _, remote, state in agent
                if state == "01" and not remote.partition(":")[0].endswith("0100007F")
            }
        ),
    }
    with open(f"/mnt/spark-dl/worker-{socket.gethostname()}.json", "w") as file:
        json.dump(facts, file)
    return _build(spec, params)

"""Seen from a worker: where it and its control channel listen, and what a stranger gets there.

Appended to a user's model (`clusters.watched`), so the standard library is all there is. Hosts are
those of one machine: the driver's sockets too are seen in /proc.
"""

import contextlib
import ipaddress
import json
import os
import pickle
import socket
import struct
import sys
import threading
import time

_LISTENS, _CONNECTED = "0A", "01"
_GREETING_BYTES = 36
_PATIENCE_S = 120


class _Exploit:
    """Creates a file wherever it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def _address(text):
    """Read an address of /proc/net/tcp: 32-bit words in the machine's order, and a port."""
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    if sys.byteorder == "little":
        raw = b"".join(raw[n : n + 4][::-1] for n in range(0, len(raw), 4))
    ip = ipaddress.ip_address(raw)
    return str(getattr(ip, "ipv4_mapped", None) or ip), int(port, 16)


def _sockets(pid):
    """Return local address, remote address and state of a process's TCP sockets."""
    inodes, found = set(), []
    with contextlib.suppress(OSError):  # it has just ended
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{pid}/net/{table}") as lines:
                rows = [line.split() for line in list(lines)[1:]]
            found += [
                (_address(row[1]), _address(row[2]), row[3])
                for row in rows
                if f"socket:[{row[9]}]" in inodes
            ]
    return found


def _listening(*pids):
    """Return the addresses on which processes listen."""
    return sorted({local for pid in pids for local, _, state in _sockets(pid) if state == _LISTENS})


def _descendants(pid):
    children = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children += file.read().split()
    return children + [other for child in children for other in _descendants(child)]


def _below(pid):
    """Return where a process's children listen, once TensorBoard, which is one, does."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        found = _listening(*_descendants(pid))
        # its server of data, which starts first, is on IPv6's loopback
        if any(ip != "::1" for ip, _ in found) or time.monotonic() > end:
            return found
        threading.Event().wait(0.1)


def _pythons():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
            if file.read().startswith("python"):
                yield int(pid)


def _control_channel(agent):
    """Find the Python at the other end of an agent's connections, and where it listens for them."""
    ends = {
        (remote, local): remote for local, remote, state in _sockets(agent) if state == _CONNECTED
    }
    for pid in _pythons():
        ours = [ends[row[:2]] for row in _sockets(pid) if row[:2] in ends]
        for reached in ours:
            at = [entry for entry in _listening(pid) if entry[1] == reached[1]]
            if at:
                return pid, reached, at
    message = f"nobody listens for what the agent is connected to: {sorted(ends)}"
    raise RuntimeError(message)


def _answer(address, words):
    """Say something to the control channel and return its answer, which should be none."""
    with socket.create_connection(address, _PATIENCE_S) as stranger:
        greeting = stranger.recv(_GREETING_BYTES, socket.MSG_WAITALL)
        if len(greeting) < _GREETING_BYTES:
            return f"it does not greet: {greeting!r}"
        # a reset: it has hung up with words of ours unread
        with contextlib.suppress(ConnectionError):
            stranger.sendall(words)
            return stranger.recv(_PATIENCE_S).hex()
    return ""


def _strangers_words(folder):
    hello = json.dumps({"kind": "hello", "rank": 0}).encode()
    payload = struct.pack(">I", len(hello)) + hello
    return (
        pickle.dumps(_Exploit(f"{folder}/pwned")).ljust(64, b"."),
        os.urandom(5000),
        # a handshake and a frame as they should be, but for the secret
        os.urandom(64) + struct.pack(">I", len(payload)) + os.urandom(32) + payload,
    )


def watch(folder):
    """Write into a folder what this worker sees."""
    agent = os.getppid()
    pid, reached, at = _control_channel(agent)
    facts = {
        "host": socket.gethostname(),
        "cluster": json.loads(os.environ["TF_CONFIG"])["cluster"],
        "listening": [port for _, port in _listening("self")],
        # to other hosts
        "agent_talks_to": sorted(
            {
                port
                for _, (ip, port), state in _sockets(agent)
                if state == _CONNECTED and not ipaddress.ip_address(ip).is_loopback
            }
        ),
        "channel": {
            "reached": reached,
            "listens": at,
            "beside_it": [entry for entry in _listening(pid) if entry not in at],
            "below_it": _below(pid),
        },
        "answers": [_answer(reached, words) for words in _strangers_words(folder)],
    }
    with open(f"{folder}/watched-{socket.gethostname()}-{os.getpid()}.json", "w") as file:
        json.dump(facts, file)

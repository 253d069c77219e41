"""Strangers at every port: refused, logged, nothing of theirs runs, the training ends well."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import struct
import threading
import time

import pytest

import spark_dl
from spark_dl.testing import descendants

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DEADLINE_S = 120


class Exploit:
    """Creates a file wherever it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def listening_ports(pid):
    """Return the TCP ports on which a process listens, from /proc."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    ports = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as lines:
            rows = [line.split() for line in list(lines)[1:]]
        ports |= {int(r[1].rpartition(":")[2], 16) for r in rows if r[3] == "0A" and r[9] in inodes}
    return ports


def command_line(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode()


def waiting(spec, params):
    """A model that announces its process and waits until the strangers have been."""
    import keras

    with open(os.path.join(params["folder"], str(os.getpid())), "w") as file:
        file.write(str(os.getppid()))
    deadline = time.monotonic() + DEADLINE_S
    while not os.path.exists(params["gate"]):
        if time.monotonic() > deadline:
            message = "the gate did not open"
            raise TimeoutError(message)
        time.sleep(0.05)
    inputs = keras.Input((), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Reshape((1,))(inputs)))
    model.compile(optimizer="sgd", loss="mse")
    return model


def attack(port, victim):
    """Talk to a port as a stranger; return connections that stay open and silent."""
    pickled = pickle.dumps(Exploit(victim))
    for payload in (pickled, struct.pack(">I", len(pickled)) + pickled, os.urandom(2000)):
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5) as sock,
        ):
            sock.sendall(payload)
            sock.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                sock.recv(100)
    with contextlib.suppress(OSError):
        return [socket.create_connection(("127.0.0.1", port), timeout=5)]
    return []


@pytest.mark.parametrize(
    "backend", ["barrier", pytest.param("tensorflowonspark", marks=pytest.mark.long)]
)
def test_strangers_get_nowhere(cluster_spark, tmp_path, backend, caplog):
    caplog.set_level(logging.INFO)
    frame = cluster_spark.range(80).selectExpr(
        "cast(id as float) as x", "cast(id * 2 as float) as y"
    )
    dataset = spark_dl.prepare(
        frame, features=["x"], label="y", path=str(tmp_path / "dataset"), splits={"train": 1.0}
    )
    pids, gate, victim = tmp_path / "pids", tmp_path / "gate", tmp_path / "pwned"
    pids.mkdir()
    before = listening_ports(os.getpid())
    outcome = {}

    def work():
        outcome["run"] = spark_dl.train(
            waiting,
            dataset,
            params={"folder": str(pids), "gate": str(gate)},
            num_workers=2,
            global_batch_size=20,
            runs=tmp_path / "runs",
            backend=backend,
            spark=cluster_spark,
        )

    thread = threading.Thread(target=work)
    thread.start()
    silent = []
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(list(pids.iterdir())) < 2:
            assert thread.is_alive(), "the training ended before the strangers came"
            assert time.monotonic() < deadline, "the workers did not start"
            time.sleep(0.1)
        boards = [pid for pid in descendants(os.getpid()) if "tensorboard" in command_line(pid)]
        control = listening_ports(os.getpid()) - before
        workers = [listening_ports(int(path.name)) for path in pids.iterdir()]
        agents = {int(path.name): int(path.read_text()) for path in pids.iterdir()}
        for child, agent in agents.items():
            for pid in {agent, *descendants(agent)} - {child}:
                assert not listening_ports(pid), f"{command_line(pid)} listens"
        board = set().union(*(listening_ports(pid) for pid in boards))
        assert len(control) == 1, "the driver listens on the control channel alone"
        assert all(workers), "TensorFlow's own ports"
        assert board, "TensorBoard's port"
        for port in control | board | set().union(*workers):
            silent += attack(port, str(victim))
    finally:
        gate.touch()
        thread.join(timeout=DEADLINE_S)
        for sock in silent:
            sock.close()
    assert outcome["run"].metrics["loss"] > 0
    assert not victim.exists()
    refusals = [
        r for r in caplog.records if r.name == "spark_dl.cluster.control" and "refused" in r.message
    ]
    assert len(refusals) >= 3
    assert listening_ports(os.getpid()) <= before, "nothing of ours listens on"

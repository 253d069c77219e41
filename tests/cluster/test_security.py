"""Strangers at every port: refused, logged, nothing of theirs runs, the training ends well."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import logging
import os
import pickle
import re
import socket
import struct
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

import pytest

import spark_dl
from spark_dl.cluster import group
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


def is_told(secret, text):
    """Whether a text holds a secret, in one of the forms in which bytes are written."""
    forms = (secret, secret.hex().encode(), base64.b64encode(secret))
    return any(form in text for form in forms)


def where_it_is_told(secret):
    """Return what other users or a log might see of a secret: arguments and environments."""
    told = []
    for pid in (os.getpid(), *descendants(os.getpid())):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has just ended
                if is_told(secret, Path(f"/proc/{pid}/{name}").read_bytes()):
                    told.append(f"{name} of {command_line(pid)}")
    return told


def files_below(folder):
    return (path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())


#: Of Spark's pages: what is of Spark alone, would end a job, or is the same in another order.
LEFT_OUT = ("/static/", "/kill/", ".sort=", "-sort=")


def fetched(url):
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as page:  # noqa: S310 (http, ours)
        return page.read()


def pages(home):
    """Return all pages to which Spark's UI leads, those of its executors' logs too, by address."""
    found, ahead = {}, [f"{home}/jobs/"]
    while ahead:
        url = ahead.pop()
        if url in found or any(part in url for part in LEFT_OUT):
            continue
        with contextlib.suppress(urllib.request.HTTPError):  # a page of what is over
            found[url] = fetched(url)
            links = re.findall(r"""(?:href|src)=["']([^"'#]+)""", found[url].decode())
            links = [urljoin(url, html.unescape(link)) for link in links]
            ahead += [link for link in links if link.startswith(home) or "/logPage" in link]
    return found


def answers(home, application):
    """Return what Spark's UI tells programs, by address."""
    rest = f"{home}/api/v1/applications/{application}"
    names = ("environment", "jobs", "stages", "allexecutors", "allmiscellaneousprocess", "sql")
    found = {url: fetched(url) for url in (rest, *(f"{rest}/{name}" for name in names))}
    for stage in json.loads(found[f"{rest}/stages"]):
        url = f"{rest}/stages/{stage['stageId']}?details=true"
        found[url] = fetched(url)
    for executor in json.loads(found[f"{rest}/allexecutors"]):
        found |= {url: fetched(url) for url in executor["executorLogs"].values()}
    return found


def told_by_the_ui(context, secret):
    """Return the addresses at which Spark's UI tells a secret, having looked at all."""
    home = context.uiWebUrl
    seen = pages(home) | answers(home, context.applicationId)
    for part in ("/environment/", "/stages/stage/?", "/executors/", "/SQL/", "/logPage", "/api/"):
        assert any(part in url for url in seen), (part, sorted(seen))
    assert context.appName.encode() in seen[f"{home}/environment/"]
    return [url for url, text in seen.items() if is_told(secret, text)]


def refused(records):
    return [r for r in records if r.name == "spark_dl.cluster.control" and "refused" in r.message]


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


def started(spark, folder, backend):
    """Start a training in a thread; give that and where its run will be."""
    frame = spark.range(80).selectExpr("cast(id as float) as x", "cast(id * 2 as float) as y")
    dataset = spark_dl.prepare(
        frame, features=["x"], label="y", path=str(folder / "dataset"), splits={"train": 1.0}
    )
    (folder / "pids").mkdir()
    outcome = {}

    def work():
        outcome["run"] = spark_dl.train(
            waiting,
            dataset,
            params={"folder": str(folder / "pids"), "gate": str(folder / "gate")},
            num_workers=2,
            global_batch_size=20,
            runs=folder / "runs",
            backend=backend,
            spark=spark,
        )

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize(
    "backend", ["barrier", pytest.param("tensorflowonspark", marks=pytest.mark.long)]
)
def test_strangers_get_nowhere(cluster_spark, tmp_path, backend, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG, "spark_dl")
    secret = os.urandom(32)
    monkeypatch.setattr(group, "new_secret", lambda: secret)
    pids, gate, victim = tmp_path / "pids", tmp_path / "gate", tmp_path / "pwned"
    before = listening_ports(os.getpid())
    thread, outcome = started(cluster_spark, tmp_path, backend)
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
        assert not where_it_is_told(secret)
        assert not told_by_the_ui(cluster_spark.sparkContext, secret)
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
    assert len(refused(caplog.records)) >= 3
    conf = cluster_spark.sparkContext.getConf().getAll()
    assert not is_told(secret, f"{conf} {caplog.text}".encode())
    assert not any(is_told(secret, file) for file in files_below(outcome["run"].path))
    assert listening_ports(os.getpid()) <= before, "nothing of ours listens on"

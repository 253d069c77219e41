"""The guide for standalone clusters, on hosts of their own; and what a firewall there would see."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pyspark
import pytest
from clusters.environment import ROOT
from clusters.guide import blocks, user_environ
from clusters.hosts import SHARED, hosts, mounted, why_not

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

SPARK_HOME = os.path.dirname(pyspark.__file__)
GUIDE = blocks("standalone.md")
WORKERS = ("worker1", "worker2")
DEADLINE_S = 240


class Cluster:
    """The guide's cluster: a master and two workers, and the folder that they share."""

    def __init__(self, machines, folder: Path) -> None:
        self.hosts = machines
        self.folder = folder
        path = [os.path.join(SPARK_HOME, "bin")]
        self.environ = user_environ(path, {"SPARK_HOME": SPARK_HOME})
        self.environ |= {"SPARK_WORKER_CORES": "1", "SPARK_WORKER_MEMORY": "2g"}
        self.environ |= {"SPARK_DAEMON_MEMORY": "256m", "MASTER": machines["master"].address}

    def on(self, name: str) -> dict[str, str]:
        work = self.folder / "work" / name
        work.mkdir(parents=True, exist_ok=True)
        own = {"ADDRESS": self.hosts[name].address, "SPARK_WORKER_DIR": str(work)}
        return self.environ | own

    def start(self, name: str, block: str) -> subprocess.Popen[str]:
        log = self.folder / f"{name}.log"
        return self.hosts[name].start("bash", "-euc", GUIDE[block], environ=self.on(name), log=log)

    def ran(self, name: str, commands: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.hosts[name].command("bash", "-euo", "pipefail", "-c", f"cd {SHARED}; {commands}"),
            env=self.on(name),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == code, f"{done.stdout[-3000:]}\n{done.stderr[-8000:]}"
        return done

    def fetched(self, commands: str) -> None:
        """Run commands that need the world's network, which the hosts do not reach."""
        subprocess.run(
            mounted(str(self.folder), "bash", "-euc", f"cd {SHARED}; {commands}"),
            env=self.environ,
            check=True,
            timeout=900,
        )

    def wait_for_workers(self) -> None:
        url = f"http://{self.hosts['master'].address}:8080/json/"
        end = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as page:
                if json.load(page)["aliveworkers"] == len(WORKERS):
                    return
            logs = [(self.folder / f"{name}.log").read_text()[-2000:] for name in self.hosts]
            assert time.monotonic() < end, "\n".join(logs)
            threading.Event().wait(0.2)


@pytest.fixture(scope="module")
def cluster(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    for name in ("conf", "jobs"):
        shutil.copytree(ROOT / name, folder / name)
    model = (ROOT / "examples" / "demo" / "model.py").read_text()
    watching = (ROOT / "tests" / "clusters" / "watching_model.py").read_text()
    (folder / "model.py").write_text(model + watching.partition('"""\n')[2])
    # the guide's first block, from the cache
    (folder / "environment").symlink_to(Path(environment.python).parents[1])
    with hosts(("master", *WORKERS), folder) as machines, contextlib.ExitStack() as daemons:
        made = Cluster(machines, folder)
        for name in machines:
            process = made.start(name, "master" if name == "master" else "worker")
            daemons.callback(process.wait, DEADLINE_S)
            daemons.callback(process.kill)
        made.wait_for_workers()
        made.fetched(GUIDE["jars"])
        made.ran(
            "master",
            "spark-submit --properties-file conf/spark-defaults-standalone.conf "
            f"--master 'local[1]' {ROOT}/tests/clusters/make_table.py {SHARED}/digits/table",
        )
        yield made


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"job"')]


def test_the_guide_on_hosts_of_their_own(cluster):
    done = cluster.ran("master", GUIDE["jobs"])
    prepared, trained, inferred = json_lines(done.stdout)
    assert sum(prepared["rows"].values()) == 400
    assert trained["status"] == "succeeded"
    assert inferred["rows"] == prepared["rows"]["test"]
    seen = [json.loads((cluster.folder / f"worker-{name}.json").read_text()) for name in WORKERS]
    assert {facts["host"] for facts in seen} == set(WORKERS)
    # what they published is the address that the others reach: neither the first interface's, nor
    # loopback's as /etc/hosts has it
    published = [address for job in seen[0]["cluster"].values() for address in job]
    reached = {cluster.hosts[name].address for name in WORKERS}
    assert {address.rpartition(":")[0] for address in published} == reached
    # TensorFlow's, the control channel's and TensorBoard's ports all lie in cluster.ports
    span = range(40000, 40011)
    for facts in seen:
        assert facts["listening"], "TensorFlow's own port"
        assert set(facts["listening"]) <= set(span)
        assert len(set(facts["agent_talks_to"]) & set(span)) == 1, "the control channel"
    (status,) = (cluster.folder / "digits" / "runs").glob("train-*/status.json")
    board = urlsplit(json.loads(status.read_text())["tensorboard"])
    assert board.hostname == "127.0.0.1"
    assert board.port in span


def test_a_range_that_is_too_small_is_an_error_that_says_so(cluster):
    # the driver shares its host with a worker: two of the run's ports on a host, in a range of one
    setup, _, jobs = GUIDE["jobs"].partition("$submit jobs")
    prepare, train = (line for line in f"$submit jobs{jobs}".splitlines()[:2])
    narrow = "--set cluster.ports=40000-40000 --set tensorboard.enabled=false"
    done = cluster.ran("worker1", f"{setup}{prepare}\n{train} {narrow}", code=2)
    last = json_lines(done.stdout)[-1]
    message = last["error"]["message"]
    assert "no port of cluster.ports 40000-40000 is free on worker1 for a worker" in message

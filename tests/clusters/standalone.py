"""A standalone cluster as its guide has it, on hosts of their own (`clusters.hosts`)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

import pyspark
from clusters.environment import ROOT
from clusters.guide import blocks, user_environ
from clusters.hosts import SHARED, hosts, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from clusters.hosts import Host

SPARK_HOME = os.path.dirname(pyspark.__file__)
GUIDE = blocks("standalone.md")
DEADLINE_S = 240


class Cluster:
    """The guide's cluster: a master and its workers, and the folder that they share."""

    def __init__(self, machines: Mapping[str, Host], folder: Path) -> None:
        self.hosts = machines
        self.folder = folder
        path = [os.path.join(SPARK_HOME, "bin")]
        self.environ = user_environ(path, {"SPARK_HOME": SPARK_HOME})
        self.environ |= {"SPARK_WORKER_CORES": "1", "SPARK_WORKER_MEMORY": "2g"}
        self.environ |= {"SPARK_DAEMON_MEMORY": "256m", "MASTER": machines["master"].address}
        # how long a worker may be silent: by default a minute, and up to another to be missed; it
        # signs four times in that
        self.environ |= {"SPARK_DAEMON_JAVA_OPTS": "-Dspark.worker.timeout=16"}

    def on(self, name: str) -> dict[str, str]:
        """Return the environment of a shell on a host."""
        work = self.folder / "work" / name
        work.mkdir(parents=True, exist_ok=True)
        own = {"ADDRESS": self.hosts[name].address, "SPARK_WORKER_DIR": str(work)}
        return self.environ | own

    def start(self, name: str, commands: str, log: Path) -> subprocess.Popen[str]:
        """Start commands on a host, in the shared folder."""
        return self.hosts[name].start("bash", "-euc", commands, environ=self.on(name), log=log)

    def ran(self, name: str, commands: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run commands on a host, in the shared folder, that must end with a code."""
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

    def wait_for_workers(self, count: int) -> None:
        """Wait until the master listens and has so many workers."""
        url = f"http://{self.hosts['master'].address}:8080/json/"
        end = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as page:
                if json.load(page)["aliveworkers"] == count:
                    return
            logs = (log.read_text()[-2000:] for log in self.folder.glob("*.log"))
            assert time.monotonic() < end, "\n".join(logs)
            threading.Event().wait(0.2)


@contextlib.contextmanager
def standalone(folder: Path, workers: Sequence[str], venv: Path) -> Iterator[Cluster]:
    """Give a cluster; `venv` takes the place of the environment of the guide's first block."""
    for name in ("conf", "jobs"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "environment").symlink_to(venv)
    with hosts(("master", *workers), folder) as machines, contextlib.ExitStack() as daemons:
        cluster = Cluster(machines, folder)
        for name in machines:
            block = GUIDE["master" if name == "master" else "worker"]
            process = cluster.start(name, block, folder / f"{name}.log")
            daemons.callback(process.wait, DEADLINE_S)
            daemons.callback(process.kill)
            if name == "master":
                # a worker that finds none tries again only after 5 to 15 s
                cluster.wait_for_workers(0)
        cluster.wait_for_workers(len(workers))
        yield cluster

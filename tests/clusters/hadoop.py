"""Real HDFS and YARN on this machine: each daemon a JVM of its own, its jars from Maven Central.

Nothing of a Hadoop distribution is needed, no libhadoop and no libhdfs either. All addresses are
loopback, all ports are free ones.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self
from xml.sax.saxutils import escape

from clusters.environment import cache_lock

if TYPE_CHECKING:
    from collections.abc import Mapping

POM = Path(__file__).with_name("hadoop-pom.xml")
HOST = "127.0.0.1"
START_S = 240.0
STOP_S = 30.0
NODE_MB = 12288
NODE_CORES = 6

# guice and cglib in the web pages of ResourceManager and NodeManager, on Java 17
_JAVA = [
    *("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    *("--add-opens=java.base/java.lang=ALL-UNNAMED", "-Djava.net.preferIPv4Stack=true"),
    # without its native library Hadoop starts a `chmod` for each file that it unpacks
    "-Djdk.lang.Process.launchMechanism=VFORK",
]
_HDFS = "org.apache.hadoop.hdfs.server"
_YARN = "org.apache.hadoop.yarn.server"
_LOG4J = """\
log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


class Ports:
    """Free ports that stay ours until a daemon listens on them.

    The sockets are bound and do not listen: the kernel gives their ports to nobody else, and a
    server that sets SO_REUSEADDR (Java's do) can still bind them.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self) -> int:
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        self._held.append(holder)
        return holder.getsockname()[1]

    def close(self) -> None:
        for holder in self._held:
            holder.close()


def maven_jars(name: str, pom: Path, *, without: str = "") -> Path:
    """Return the folder of the jars that a pom names; Maven fetches them once.

    Args:
        name: of the folder in the cache.
        pom: what to fetch.
        without: group ids to leave out, with commas between.
    """
    with cache_lock(name) as folder:
        jars = folder / "jars"
        if not (folder / "pom.xml").exists() or (folder / "pom.xml").read_text() != pom.read_text():
            shutil.rmtree(jars, ignore_errors=True)
            subprocess.run(
                [
                    *("mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"),
                    *("-DincludeScope=runtime", f"-DoutputDirectory={jars}"),
                    f"-DexcludeGroupIds={without}",
                ],
                check=True,
                timeout=900,
            )
            shutil.copy(pom, folder / "pom.xml")
        return jars


def _write_xml(path: Path, properties: Mapping[str, object]) -> None:
    rows = "".join(
        f"  <property><name>{name}</name><value>{escape(str(value))}</value></property>\n"
        for name, value in properties.items()
    )
    path.write_text(f"<configuration>\n{rows}</configuration>\n")


class Hadoop:
    """HDFS (NameNode, DataNode) and YARN (ResourceManager, NodeManagers); a context manager.

    Args:
        root: an empty folder for everything that the daemons write.
        node_managers: how many nodes YARN has; 0 starts HDFS only.
        settings: more properties for each ``*-site.xml``, by the file's name without the ending.
        java_options: more options for each JVM, such as where ``krb5.conf`` lies.
    """

    def __init__(
        self,
        root: Path,
        *,
        node_managers: int = 1,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        java_options: tuple[str, ...] = (),
    ) -> None:
        self.root = root
        self.conf = root / "conf"
        self.node_managers = node_managers
        self._settings = settings or {}
        self._java = [*_JAVA, *java_options]
        self._ports = Ports()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._jars = maven_jars("hadoop", POM)
        self.namenode_port = self._ports.take()
        self.webhdfs_port = self._ports.take()
        self.rm_web_port = self._ports.take()

    @property
    def uri(self) -> str:
        """The root of the file system."""
        return f"hdfs://{HOST}:{self.namenode_port}"

    @property
    def environ(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {"HADOOP_CONF_DIR": str(self.conf)}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _configure(self) -> None:
        # the jars carry no web pages: an empty folder is enough for WebHDFS
        for pages in ("hdfs", "datanode"):
            (self.conf / "webapps" / pages).mkdir(parents=True)
        (self.root / "log").mkdir()
        self._write_client()
        (self.conf / "log4j.properties").write_text(_LOG4J)
        for name, properties in self._sites().items():
            _write_xml(self.conf / f"{name}.xml", {**properties, **self._settings.get(name, {})})

    def _write_client(self) -> None:
        """Write ``bin/hdfs``, which knows ``hdfs dfs`` only."""
        command = " ".join(self._java_command("org.apache.hadoop.fs.FsShell"))
        script = self.root / "bin" / "hdfs"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nshift\nexec {command} "$@"\n'.replace("/*", "/\\*"))
        script.chmod(0o755)

    def _sites(self) -> dict[str, dict[str, object]]:
        core = {
            "fs.defaultFS": self.uri,
            "hadoop.tmp.dir": self.root / "tmp",
            "hadoop.http.staticuser.user": getpass.getuser(),
        }
        hdfs = {
            "dfs.replication": 1,
            "dfs.namenode.name.dir": f"file://{self.root}/namenode",
            "dfs.datanode.data.dir": f"file://{self.root}/datanode",
            "dfs.namenode.rpc-address": f"{HOST}:{self.namenode_port}",
            "dfs.namenode.http-address": f"{HOST}:{self.webhdfs_port}",
            "dfs.datanode.address": f"{HOST}:0",
            "dfs.datanode.http.address": f"{HOST}:0",
            "dfs.datanode.ipc.address": f"{HOST}:0",
            "dfs.datanode.hostname": HOST,
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.namenode.safemode.extension": 0,
            "dfs.datanode.du.reserved": 0,
            # else a disk that is nearly full ends in a file system that nobody can write
            "dfs.namenode.resource.du.reserved": 0,
        }
        return {
            "core-site": core,
            "hdfs-site": hdfs,
            "yarn-site": self._yarn_site(),
            "capacity-scheduler": {
                "yarn.scheduler.capacity.root.queues": "default",
                "yarn.scheduler.capacity.root.default.capacity": 100,
                "yarn.scheduler.capacity.maximum-am-resource-percent": 0.8,
            },
        }

    def _yarn_site(self) -> dict[str, object]:
        addresses = {
            name: f"{HOST}:{self._ports.take()}"
            for name in ("", "scheduler.", "resource-tracker.", "admin.")
        }
        nodemanager = {
            "resource.memory-mb": NODE_MB,
            "resource.cpu-vcores": NODE_CORES,
            # TensorFlow and the JVM map far more address space than they use
            "vmem-check-enabled": "false",
            "pmem-check-enabled": "true",
            # by default (true) YARN trusts cgroups, which are not set up here, and kills nobody
            "resource.memory.enforced": "false",
            "container-monitor.interval-ms": 1000,
            "disk-health-checker.max-disk-utilization-per-disk-percentage": 99.5,
            "log.retain-seconds": 10800,
            "env-whitelist": "JAVA_HOME,JDK_JAVA_OPTIONS,HADOOP_CONF_DIR,PATH,LANG,TZ",
            **dict.fromkeys(("address", "localizer.address", "webapp.address"), f"{HOST}:0"),
            "collector-service.address": f"{HOST}:0",
            "hostname": HOST,
        }
        return {
            "yarn.resourcemanager.hostname": HOST,
            "yarn.resourcemanager.webapp.address": f"{HOST}:{self.rm_web_port}",
            **{f"yarn.resourcemanager.{name}address": at for name, at in addresses.items()},
            # containers are given and taken back at a node's heartbeat, every second by default
            "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": 200,
            # several nodes on one host
            "yarn.scheduler.include-port-in-node-name": "true",
            "yarn.scheduler.minimum-allocation-mb": 128,
            "yarn.scheduler.maximum-allocation-mb": NODE_MB,
            "yarn.log-aggregation-enable": "false",
            **{f"yarn.nodemanager.{name}": value for name, value in nodemanager.items()},
        }

    def _java_command(self, main: str, *options: str) -> list[str]:
        log = f"-Dhadoop.log.dir={self.root}/log"
        path = f"{self.conf}:{self._jars}/*"
        return [
            "java",
            *self._java,
            log,
            f"-Dyarn.log.dir={self.root}/log",
            "-cp",
            path,
            main,
            *options,
        ]

    def _daemon(self, name: str, main: str, *options: str) -> None:
        with open(self.root / "log" / f"{name}.log", "wb") as log:
            self._daemons[name] = subprocess.Popen(
                self._java_command(main, *options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environ},
            )

    def _start(self) -> None:
        self._configure()
        formatted = subprocess.run(
            self._java_command(f"{_HDFS}.namenode.NameNode", "-format", "-nonInteractive"),
            check=False,
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        assert formatted.returncode == 0, formatted.stderr[-4000:]
        self._daemon("namenode", f"{_HDFS}.namenode.NameNode")
        self._daemon("datanode", f"{_HDFS}.datanode.DataNode")
        if self.node_managers:
            self._daemon("resourcemanager", f"{_YARN}.resourcemanager.ResourceManager")
        for number in range(1, self.node_managers + 1):
            self._daemon(
                f"nodemanager{number}",
                f"{_YARN}.nodemanager.NodeManager",
                f"-Dyarn.nodemanager.local-dirs={self.root}/nodemanager{number}/local",
                f"-Dyarn.nodemanager.log-dirs={self.root}/nodemanager{number}/log",
            )
        self._wait_until_ready()
        self._ports.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not (self._has_datanode() and self._active_nodes() == self.node_managers):
            for name, daemon in self._daemons.items():
                assert daemon.poll() is None, f"{name} has ended: {self.log(name)[-4000:]}"
            assert time.monotonic() < deadline, f"Hadoop did not start within {START_S:g} s"
            time.sleep(0.2)

    def _metrics(self, port: int, path: str) -> dict:
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer,
        ):
            return json.load(answer)
        return {}

    def _has_datanode(self) -> bool:
        beans = self._metrics(
            self.webhdfs_port, "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
        ).get("beans")
        return bool(beans) and beans[0]["NumLiveDataNodes"] == 1

    def _active_nodes(self) -> int:
        if not self.node_managers:
            return 0
        return self._of_yarn("activeNodes")

    def _of_yarn(self, name: str) -> int:
        """Return one of the ResourceManager's figures, -1 while it does not answer."""
        metrics = self._metrics(self.rm_web_port, "/ws/v1/cluster/metrics").get("clusterMetrics")
        return metrics[name] if metrics else -1

    def log(self, name: str) -> str:
        """Return what a daemon wrote."""
        return (self.root / "log" / f"{name}.log").read_text(errors="replace")

    def fs(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Run ``hadoop fs`` and return what it printed."""
        return self.java("org.apache.hadoop.fs.FsShell", *arguments, environ=environ)

    def java(self, main: str, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Run one of Hadoop's programs as a client and return what it printed."""
        done = subprocess.run(
            self._java_command(main, *arguments),
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environ, **(environ or {})},
            timeout=300,
        )
        assert done.returncode == 0, f"{main} {' '.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout

    def last_words(self) -> str:
        """Return the end of what the newest application's containers wrote."""
        logs = self.container_logs()
        newest = max((path.split("/")[2] for path in logs), default="")
        return "\n".join(
            f"{path}:\n{text[-4000:]}"
            for path, text in sorted(logs.items())
            if newest in path and path.endswith(("stdout", "stderr")) and text
        )

    def kill_application(self) -> None:
        """Kill the only application that runs, as ``yarn application -kill`` does."""
        apps = f"http://{HOST}:{self.rm_web_port}/ws/v1/cluster/apps"
        with urllib.request.urlopen(f"{apps}?states=RUNNING", timeout=60) as answer:  # noqa: S310
            (application,) = json.load(answer)["apps"]["app"]
        request = urllib.request.Request(  # noqa: S310
            f"{apps}/{application['id']}/state",
            data=json.dumps({"state": "KILLED"}).encode(),
            headers={"Content-Type": "application/json"},
            method="PUT",
        )
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310

    def container_logs(self) -> dict[str, str]:
        """Return what the containers of all applications wrote, by path."""
        return {
            str(path.relative_to(self.root)): path.read_text(errors="replace")
            for path in self.root.glob("nodemanager*/log/application_*/container_*/*")
        }

    def stop(self) -> None:
        """End all daemons, the nodes first; each must be gone before this returns."""
        self._ports.close()
        nodes_are_idle = self._of_yarn("containersAllocated") == 0
        daemons = list(reversed(self._daemons.items()))
        for name, daemon in daemons:
            if daemon.poll() is None:
                # a node that is asked to end waits 17 s for applications that have ended long ago
                at_once = nodes_are_idle and name.startswith("nodemanager")
                daemon.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)
        for _, daemon in daemons:
            try:
                daemon.wait(STOP_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

"""YARN as docs/yarn.md has it: its commands run as they stand, on real daemons, from the wheel."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pyspark
import pytest
from clusters.environment import INSTALLED, ROOT, packed
from clusters.guide import blocks, shell, user_environ
from clusters.watched import check_board, check_channel, forget, watching

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.timeout(1800)

SPARK_HOME = os.path.dirname(pyspark.__file__)
GUIDE = blocks("yarn.md")
DATA = "hdfs:///spark-dl/digits"
TABLE = f"{DATA}/table"
#: Each look at HDFS starts a JVM, which takes from what it waits for.
PAUSE = threading.Event()
#: What the jobs write.
WRITTEN = ("dataset", "runs", "predictions")


class Project:
    """A user's folder on the edge node, and what the user sees from there."""

    def __init__(self, folder: Path, hadoop) -> None:
        self.folder = folder
        self.hadoop = hadoop
        self.environ = user_environ(
            [str(hadoop.root / "bin"), os.path.join(SPARK_HOME, "bin")],
            {"SPARK_HOME": SPARK_HOME, **hadoop.environ},
        )

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        return shell(commands, folder=self.folder, environ=self.environ)

    def ran(self, commands: str) -> list[str]:
        """Run commands that must succeed and return the lines of stdout."""
        done = self.run(commands)
        assert done.returncode == 0, (
            f"{done.stdout[-3000:]}\n{done.stderr[-8000:]}\n{self.hadoop.last_words()}"
        )
        return done.stdout.splitlines()

    def read(self, path: str) -> str:
        return self.hadoop.fs("-cat", path)

    def names(self, path: str) -> list[str]:
        rows = self.hadoop.fs("-ls", "-C", path).splitlines()
        return [row.rpartition("/")[2] for row in rows]

    def statuses(self) -> dict[str, dict]:
        runs = f"{DATA}/runs"
        return {run: json.loads(self.read(f"{runs}/{run}/status.json")) for run in self.names(runs)}


@pytest.fixture(scope="module")
def project(hadoop, environment, tmp_path_factory):
    """The folder of the guide, with everything that is done once."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("conf", "jobs"):
        shutil.copytree(ROOT / name, folder / name)
    model = (ROOT / "examples" / "demo" / "model.py").read_text()
    (folder / "model.py").write_text(watching(model, str(folder)))
    # the guide's first block, from the cache: the same commands but for where the wheel comes from
    assert INSTALLED in GUIDE["environment"]
    (folder / "environment").symlink_to(Path(environment.python).parents[1])
    (folder / "environment.tar").symlink_to(packed(environment))
    made = Project(folder, hadoop)
    # Delta replays a table's log in 50 tasks by default: here that is most of the time
    with open(folder / "conf" / "spark-defaults-yarn.conf", "a") as settings:
        settings.write("spark.databricks.delta.snapshotPartitions 2\n")
    made.ran(GUIDE["once"])
    made.ran(GUIDE["jars"])
    made.ran(
        "spark-submit --properties-file conf/spark-defaults-yarn.conf --master 'local[1]' "
        f"{ROOT}/tests/clusters/make_table.py {TABLE}"
    )
    return made


@pytest.fixture
def clean(project, hadoop):
    hadoop.fs("-rm", "-r", "-f", *(f"{DATA}/{name}" for name in WRITTEN))
    forget(project.folder)
    return project


@pytest.fixture(scope="module")
def prepared(project):
    """Give the settings of a job that trains on a dataset which stays."""
    settings = f"--config conf/yarn.yaml --set dataset.path={DATA}/kept"
    prepare_here(project, settings)
    return settings


def prepare_here(project, settings):
    """Write the dataset without YARN, for tests of what comes after."""
    project.ran(
        "spark-submit --properties-file conf/spark-defaults-yarn.conf --master 'local[1]' "
        f"jobs/prepare.py {settings}"
    )


def printed(job: str) -> str:
    """Return the beginning of a command that prints a job's line for this cluster."""
    given = "--conf spark.yarn.archive=hdfs:///spark-dl/spark-jars.jar"
    return (
        f"SPARK_DL_JARS_DIR=jars environment/bin/spark-dl submit {job} --config conf/yarn.yaml "
        f"--cluster yarn --conf spark.databricks.delta.snapshotPartitions=2 {given}"
    )


def json_lines(lines: list[str]) -> list[dict]:
    return [json.loads(line) for line in lines if line.startswith('{"job"')]


def check_outcome(project, jobs=("prepare", "train", "infer")) -> None:
    """Hold what lies on HDFS against what the jobs promise."""
    statuses = project.statuses()
    assert {status["job"]: status["status"] for status in statuses.values()} == dict.fromkeys(
        jobs, "succeeded"
    )
    (run,) = (name for name, status in statuses.items() if status["job"] == "train")
    assert "model.keras" in project.names(f"{DATA}/runs/{run}/model/1")
    assert "checkpoint.json" in project.names(f"{DATA}/runs/{run}/checkpoints/step-*")
    assert any("tfevents" in name for name in project.names(f"{DATA}/runs/{run}/events/train"))
    if "infer" in jobs:
        assert "_delta_log" in project.names(f"{DATA}/predictions")


def test_client_mode_as_the_guide_has_it(clean):
    lines = clean.ran(GUIDE["client"])
    prepared, trained, inferred = json_lines(lines)
    assert sum(prepared["rows"].values()) == 400
    assert trained["status"] == "succeeded"
    assert inferred["rows"] == prepared["rows"]["test"]
    check_outcome(clean)
    check_channel(clean.folder, "\n".join(lines))
    check_board(clean.folder)


def test_cluster_mode_as_the_guide_has_it(clean, hadoop):
    before = hadoop.container_logs().keys()
    clean.ran(GUIDE["cluster"])
    check_outcome(clean)
    new = [text for path, text in hadoop.container_logs().items() if path not in before]
    check_channel(clean.folder, "\n".join(new))
    check_board(clean.folder)
    check_tunnel(clean)


def check_tunnel(project) -> None:
    """Hold what the driver's log said of TensorBoard, which listens in a container, on loopback."""
    (status,) = (status for status in project.statuses().values() if status["job"] == "train")
    told = status["tensorboard"]
    port = urlsplit(told.split()[0]).port
    tunnel = rf"http://127\.0\.0\.1:{port}/ after: ssh -N -L {port}:127\.0\.0\.1:{port} (\S+)@(\S+)"
    user, host = re.fullmatch(tunnel, told).groups()
    assert user == getpass.getuser()
    said = {
        path: text
        for path, text in project.hadoop.container_logs().items()
        if f"TensorBoard: {told}" in text
    }
    # the host is the one of the driver's container: it alone could bind this address
    assert said, "the driver's log has the line"
    socket.create_server((host, 0)).close()


def test_the_environment_already_on_the_nodes(clean, environment):
    clean.environ["PYTHON_ON_NODES"] = environment.python
    done = clean.run(f"{printed('prepare')} --python {environment.python} --print | bash")
    assert done.returncode == 0, done.stderr[-8000:]
    (prepared,) = json_lines(done.stdout.splitlines()[-1:])
    assert sum(prepared["rows"].values()) == 400
    clean.ran(GUIDE["nodes"])
    check_outcome(clean, ("prepare", "train"))


def test_a_container_that_yarn_kills_for_its_memory_is_reported_as_such(project, prepared):
    shutil.copy(ROOT / "tests" / "clusters" / "hungry_model.py", project.folder)
    small = "--executor-memory 512m --memory-overhead 768m --py-files hungry_model.py"
    archive = "--archive hdfs:///spark-dl/environment.tar"
    # --set follows the script, as its last comment says
    done = project.run(
        f"{printed('train')} {small} {archive} --print >train.sh\n"
        f'bash -c "$(cat train.sh) --set dataset.path={DATA}/kept '
        '--set model.fn=hungry_model:build"'
    )
    assert done.returncode == 2, done.stderr[-8000:]
    (last,) = json_lines(done.stdout.splitlines()[-1:])
    first, *others = last["error"]["message"].splitlines()
    assert "YARN killed the container for its memory" in first
    assert "its limit is 1.3 GB" in first
    assert "raise spark.executor.memoryOverhead" in first
    assert any("/node/containerlogs/container_" in line for line in others)
    assert not last["error"]["retryable"]


def test_a_driver_on_the_cluster_says_that_it_was_killed(clean, prepared):
    """YARN leaves a container a quarter of a second for it."""
    long = "--set training.epochs=100000 --set training.checkpoint.every_epochs=1000"
    command = (
        "spark-submit --properties-file conf/spark-defaults-yarn.conf --deploy-mode cluster "
        "--files conf/yarn.yaml --py-files model.py jobs/train.py "
        f"{prepared.replace('conf/yarn.yaml', 'yarn.yaml')} {long}"
    )
    with ThreadPoolExecutor() as pool:
        submitted = pool.submit(clean.run, command)
        deadline = time.monotonic() + 240
        while (state := state_of_run(clean)) != "running":
            assert time.monotonic() < deadline, state
            assert not submitted.done(), submitted.result().stderr[-8000:]
            PAUSE.wait(3)
        clean.hadoop.kill_application()
        assert submitted.result(240).returncode != 0
    deadline = time.monotonic() + 60
    while (state := state_of_run(clean)) == "running":
        assert time.monotonic() < deadline, clean.hadoop.last_words()
        PAUSE.wait(1)
    assert state == "cancelled"
    clean.hadoop.fs("-rm", "-r", "-f", f"{DATA}/runs")


def state_of_run(project) -> str:
    """Return what the only run says of itself, empty before it says anything."""
    names = project.hadoop.fs("-ls", "-C", "-R", DATA).split()
    found = [name for name in names if re.search(r"/runs/[^/]+/status\.json$", name)]
    return json.loads(project.read(found[0]))["status"] if found else ""


def test_an_overhead_without_room_for_tensorflow_is_refused_at_once(project, prepared):
    done = project.run(
        "spark-submit --properties-file conf/spark-defaults-yarn.conf --py-files model.py "
        f"--conf spark.executor.memoryOverhead=384m jobs/train.py {prepared}"
    )
    assert done.returncode == 2, done.stderr[-8000:]
    (last,) = json_lines(done.stdout.splitlines()[-1:])
    assert "spark.executor.memoryOverhead=" in last["error"]["message"]

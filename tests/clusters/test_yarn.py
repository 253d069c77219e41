"""YARN as docs/yarn.md has it: its commands run as they stand, on real daemons, from the wheel."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark
import pytest
from clusters.environment import ROOT
from clusters.guide import blocks, shell, user_environ

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.timeout(1800)

SPARK_HOME = os.path.dirname(pyspark.__file__)
GUIDE = blocks("yarn.md")
DATA = "hdfs:///spark-dl/digits"
WORKERS = 2


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
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-8000:]}"
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
    shutil.copy(ROOT / "examples" / "demo" / "model.py", folder)
    # the guide's first block, from the cache: the same commands but for where the wheel comes from
    (folder / "environment").symlink_to(Path(environment.python).parents[1])
    (folder / "environment.tar").symlink_to(environment.archive)
    made = Project(folder, hadoop)
    made.ran(GUIDE["once"])
    made.ran(GUIDE["jars"])
    made.ran(
        "spark-submit --properties-file conf/spark-defaults-yarn.conf --master 'local[1]' "
        f"{ROOT}/tests/clusters/make_table.py {DATA}/table"
    )
    return made


@pytest.fixture
def clean(project, hadoop):
    hadoop.fs("-rm", "-r", "-f", *(f"{DATA}/{it}" for it in ("dataset", "runs", "predictions")))
    return project


def json_lines(lines: list[str]) -> list[dict]:
    return [json.loads(line) for line in lines if line.startswith('{"job"')]


def check_outcome(project) -> None:
    """Hold what lies on HDFS against what the jobs promise."""
    statuses = project.statuses()
    assert {status["job"]: status["state"] for status in statuses.values()} == dict.fromkeys(
        ("prepare", "train", "infer"), "succeeded"
    )
    (run,) = (name for name, status in statuses.items() if status["job"] == "train")
    assert "model.keras" in project.names(f"{DATA}/runs/{run}/model/1")
    assert "_delta_log" in project.names(f"{DATA}/predictions")


def test_client_mode_as_the_guide_has_it(clean):
    prepared, trained, inferred = json_lines(clean.ran(GUIDE["client"]))
    assert sum(prepared["rows"].values()) == 400
    assert trained["status"] == "succeeded"
    assert inferred["rows"] == prepared["rows"]["test"]
    check_outcome(clean)


def test_cluster_mode_as_the_guide_has_it(clean):
    clean.ran(GUIDE["cluster"])
    check_outcome(clean)

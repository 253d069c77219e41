"""What is read from the environment, and where."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

from spark_dl.config.environment import (
    configured_master,
    point_executors_at_this_python,
    take_python_from,
    under_spark_submit,
)

PACKAGE = Path(__file__).parents[2] / "spark_dl"
NAMES = ["PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR", "SPARK_HOME", "MASTER", "SPARK_REMOTE"]


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in [*NAMES, "PYSPARK_GATEWAY_PORT", "PYSPARK_PYTHON"]:
        monkeypatch.delenv(name, raising=False)


def test_nothing_set_means_no_master():
    assert configured_master() is None
    assert not under_spark_submit()


@pytest.mark.parametrize(
    ("name", "value", "master"),
    [
        ("MASTER", "yarn", "yarn"),
        ("SPARK_REMOTE", "sc://host", "sc://host"),
        ("PYSPARK_SUBMIT_ARGS", "--master yarn pyspark-shell", "yarn"),
        ("PYSPARK_SUBMIT_ARGS", "--conf spark.master=local[3] pyspark-shell", "local[3]"),
        ("PYSPARK_SUBMIT_ARGS", "--jars x.jar pyspark-shell", None),
    ],
)
def test_a_master_in_the_environment_is_found(name, value, master, monkeypatch):
    monkeypatch.setenv(name, value)
    assert configured_master() == master


@pytest.mark.parametrize(
    "line", ["spark.master yarn", "spark.master=yarn", "  spark.master:\tyarn"]
)
@pytest.mark.parametrize("place", ["conf_dir", "home"])
def test_a_master_in_spark_defaults_is_found(line, place, monkeypatch, tmp_path):
    folder = tmp_path if place == "conf_dir" else tmp_path / "conf"
    folder.mkdir(exist_ok=True)
    (folder / "spark-defaults.conf").write_text(f"# spark.master local\nspark.x 1\n{line}\n")
    monkeypatch.setenv("SPARK_CONF_DIR" if place == "conf_dir" else "SPARK_HOME", str(tmp_path))
    assert configured_master() == "yarn"


def test_a_conf_folder_that_happens_to_be_here_says_nothing(monkeypatch, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text("spark.master yarn\n")
    monkeypatch.chdir(tmp_path)
    assert configured_master() is None


def test_executors_get_this_python_unless_the_user_chose(monkeypatch):
    monkeypatch.setenv("SPARK_HOME", "/opt/mine")
    # setenv first, so that monkeypatch takes back what the call sets
    monkeypatch.setenv("PYSPARK_PYTHON", "x")
    monkeypatch.delenv("PYSPARK_PYTHON")
    point_executors_at_this_python("/site-packages/pyspark")
    import os

    assert os.environ["SPARK_HOME"] == "/opt/mine"
    assert os.environ["PYSPARK_PYTHON"] == sys.executable


def test_only_config_reads_the_environment():
    """`cluster` has one module that reads what Spark and YARN set in a container."""
    readers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            attribute = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
            if attribute and isinstance(node.value, ast.Name) and node.value.id == "os":
                readers.add(path.relative_to(PACKAGE).as_posix())
    allowed = {"config/environment.py"}
    # these hand the environment on to processes that they start, or put it back
    children = {
        name for name in readers if name.startswith(("cluster/", "monitoring/", "testing/"))
    }
    assert readers - allowed - children == set()


def test_the_setting_for_the_executors_python_counts_without_spark_submit_too(monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", "before")
    take_python_from({})
    assert os.environ["PYSPARK_PYTHON"] == "before"
    take_python_from({"spark.pyspark.python": "/env/bin/python"})
    assert os.environ["PYSPARK_PYTHON"] == "/env/bin/python"
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    take_python_from({"spark.pyspark.python": "/other"})
    assert os.environ["PYSPARK_PYTHON"] == "/env/bin/python"

"""Two sides, one wall: what loads what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Blocked())
"""
SPARK = {"pyspark", "py4j", "delta"}
TENSORFLOW = {"tensorflow", "keras", "tensorflowonspark", "tensorboard"}


def run(code, blocked=frozenset()):
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=set(blocked)) + code],
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_package_loads_neither_spark_nor_tensorflow_nor_pandas():
    heavy = {*SPARK, *TENSORFLOW, "pandas", "pyarrow"}
    done = run(f"import spark_dl\nprint(sorted({heavy!r} & set(sys.modules)))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_public_names_are_listed_before_they_are_loaded():
    done = run("import spark_dl\nprint(set(spark_dl.__all__) <= set(dir(spark_dl)))")
    assert done.stdout == "True\n"


def test_an_unknown_name_is_an_attribute_error():
    import spark_dl

    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = spark_dl.trian


@pytest.mark.parametrize(
    "module",
    [
        "spark_dl",
        "spark_dl.errors",
        "spark_dl.versions",
        "spark_dl.config",
        "spark_dl.schema",
        "spark_dl.storage",
        "spark_dl.shards.manifest",
        "spark_dl.shards.assignment",
        "spark_dl.cli",
    ],
)
def test_these_need_neither(module):
    done = run(f"import {module}", SPARK | TENSORFLOW)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module",
    ["spark_dl.cluster", "spark_dl.tables", "spark_dl.session", "spark_dl.pipeline", "spark_dl.ml"],
)
def test_a_driver_needs_no_tensorflow(module):
    done = run(f"import {module}", TENSORFLOW)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["spark_dl.training", "spark_dl.inference.predictor"])
def test_what_runs_tensorflow_needs_no_spark(module):
    done = run(f"import {module}", SPARK)
    assert done.returncode == 0, done.stderr


def test_every_public_name_loads_on_a_driver_without_tensorflow():
    code = "import spark_dl\nfor name in spark_dl.__all__: getattr(spark_dl, name)"
    done = run(code, TENSORFLOW)
    assert done.returncode == 0, done.stderr


def test_only_one_module_loads_tensorflowonspark():
    package = Path(__file__).parents[2] / "spark_dl"
    loaders = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and str(node.value).startswith("tensorflowonspark.")
    }
    assert loaders == {"cluster/tfos.py"}


def test_the_spark_ml_classes_load_on_a_driver_without_tensorflow():
    code = "import spark_dl.ml\nfor name in spark_dl.ml.__all__: getattr(spark_dl.ml, name)"
    done = run(code, TENSORFLOW)
    assert done.returncode == 0, done.stderr


def test_the_default_models_need_no_spark():
    done = run("import spark_dl.ml.dense", SPARK)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks():
    done = run("import tensorflow", TENSORFLOW)
    assert "tensorflow is not installed here" in done.stderr

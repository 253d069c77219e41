"""The runner of notebooks, on notebooks that need no Spark."""

from __future__ import annotations

import ast
import traceback

import pytest

from spark_dl.errors import ConfigError
from spark_dl.testing import run_notebook

HEAD = "# Databricks notebook source\n"
CELL = "\n# COMMAND ----------\n\n"


@pytest.fixture
def run(tmp_path):
    def run_cells(*cells, **widgets):
        path = tmp_path / "notebook.py"
        path.write_text(HEAD + CELL.join(cells))
        return run_notebook(path, None, widgets)

    return run_cells


def test_cells_share_their_names_and_parameters_win_over_defaults(run):
    done = run(
        "# MAGIC %md\n# MAGIC # Title",
        "# MAGIC %pip install a b",
        'dbutils.widgets.text("epochs", "5", "epochs")\ndbutils.widgets.text("seed", 3)',
        'told = dbutils.widgets.getAll()\ndisplay(told["epochs"] + told["seed"])',
        'dbutils.jobs.taskValues.set(key="a", value=1)\ndbutils.notebook.exit(len(told))\nboom()',
        "boom()",
        epochs=2,
    )
    assert done.shown == ["23"]
    assert done.installed == ["install a b"]
    assert done.task_values == {"a": 1}
    assert done.exit_value == "2"


def test_an_error_names_the_line_of_the_notebook(run):
    with pytest.raises(ZeroDivisionError) as raised:
        run("a = 1", "# DBTITLE 1,Division\nb = 2", "a / 0")
    assert traceback.extract_tb(raised.value.__traceback__)[-1].lineno == 9


def test_a_widget_that_nobody_defined_is_an_error_with_a_hint(run):
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        run('dbutils.widgets.text("epochs")', 'dbutils.widgets.get("epoch")')
    with pytest.raises(ConfigError, match="'c' is none of a, b"):
        run('dbutils.widgets.dropdown("x", "a", ["a", "b"])', x="c")


def test_what_is_no_notebook_is_refused(tmp_path, run):
    path = tmp_path / "script.py"
    path.write_text("print(1)")
    with pytest.raises(ConfigError, match="source format"):
        run_notebook(path, None)
    with pytest.raises(ConfigError, match="line 2: %sh is not known"):
        run("# MAGIC %sh ls")


def test_the_notebooks_call_public_names_only():
    from clusters.environment import ROOT

    import spark_dl

    for path in (ROOT / "notebooks").glob("*.py"):
        tree = ast.parse(path.read_text())
        imported = {
            name.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in node.names
        }
        assert imported <= {"spark_dl", "keras", "json"}, path
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "spark_dl"
        }
        assert used <= set(spark_dl.__all__), path

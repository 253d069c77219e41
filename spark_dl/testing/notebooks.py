"""Databricks notebooks in source format, run cell by cell where there is no Databricks.

`dbutils` and `display` are small stand-ins: widgets are always texts, a job's parameters win over
their defaults, `display` computes the rows it would show. What they cannot show is Databricks
itself: its runtime, Unity Catalog, its access modes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from spark_dl.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.sql import SparkSession

__all__ = ["NotebookRun", "run_notebook"]

_HEAD: Final = "# Databricks notebook source"
_CELL: Final = "# COMMAND ----------"
_TITLE: Final = "# DBTITLE"
_MAGIC: Final = "# MAGIC"
_ROWS_SHOWN: Final = 1000


@dataclass(frozen=True, kw_only=True)
class NotebookRun:
    """What a notebook did.

    Attributes:
        exit_value: what it gave to ``dbutils.notebook.exit``; `None` when it ran to its end.
        shown: what it gave to ``display``: rows of a DataFrame, other values as they were.
        installed: arguments of its ``%pip`` cells; nothing is installed.
        task_values: what it gave to ``dbutils.jobs.taskValues.set``.
        namespace: its variables.
    """

    exit_value: str | None
    shown: Sequence[Any]
    installed: Sequence[str]
    task_values: Mapping[str, Any]
    namespace: Mapping[str, Any] = field(repr=False)


class _Exit(Exception):  # noqa: N818 (an end, no error)
    """The notebook called ``dbutils.notebook.exit``."""


class _Widgets:
    """``dbutils.widgets``: every value is a text."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = {name: str(value) for name, value in given.items()}
        self._defaults: dict[str, str] = {}

    def text(self, name: str, defaultValue: str = "", label: str = "") -> None:  # noqa: N803, ARG002 (Databricks' names)
        self._defaults[name] = str(defaultValue)

    def dropdown(
        self,
        name: str,
        defaultValue: str,  # noqa: N803 (Databricks' name)
        choices: Sequence[str],
        label: str = "",
    ) -> None:
        self.text(name, defaultValue, label)
        if self.get(name) not in choices:
            msg = f"widget {name}: {self.get(name)!r} is none of {', '.join(choices)}"
            raise ConfigError(msg)

    combobox = dropdown

    def get(self, name: str) -> str:
        known = self.getAll()
        if name not in known:
            msg = f"no widget {name!r} is defined{did_you_mean(name, known)}"
            raise ConfigError(msg)
        return known[name]

    def getAll(self) -> dict[str, str]:  # noqa: N802 (Databricks' name)
        return {**self._defaults, **self._given}


class _Notebook:
    """A notebook while it runs."""

    def __init__(self, path: str, spark: SparkSession, widgets: Mapping[str, str]) -> None:
        self.path = path
        self.shown: list[Any] = []
        self.installed: list[str] = []
        self.task_values: dict[str, Any] = {}
        self.namespace: dict[str, Any] = {
            "__name__": "__main__",
            "spark": spark,
            "display": self._display,
            "displayHTML": self.shown.append,
            "dbutils": self._dbutils(widgets),
        }
        self._spark = spark

    def _dbutils(self, widgets: Mapping[str, str]) -> SimpleNamespace:
        def leave(value: object) -> None:
            raise _Exit(str(value))

        def keep(key: str, value: object) -> None:
            self.task_values[key] = value

        return SimpleNamespace(
            widgets=_Widgets(widgets),
            notebook=SimpleNamespace(exit=leave),
            library=SimpleNamespace(restartPython=lambda: None),
            jobs=SimpleNamespace(taskValues=SimpleNamespace(set=keep)),
            fs=SimpleNamespace(mkdirs=lambda path: os.makedirs(path, exist_ok=True)),
        )

    def _display(self, value: Any) -> None:  # noqa: ANN401 (a notebook displays anything)
        is_frame = hasattr(value, "limit") and hasattr(value, "collect")
        self.shown.append(value.limit(_ROWS_SHOWN).collect() if is_frame else value)

    def run_cell(self, line: int, cell: list[str]) -> None:
        """Run one cell; `line` is its first line in the file, for true tracebacks."""
        lines = [text for text in cell if text.strip() and not text.startswith(_TITLE)]
        if not lines or not lines[0].startswith(_MAGIC):
            self._run_python(line, "\n".join(cell))
            return
        said = "\n".join(text.removeprefix(_MAGIC).removeprefix(" ") for text in lines)
        magic, _, rest = said.partition(" ")
        if magic == "%pip":
            self.installed.append(rest.strip())
        elif magic == "%sql":
            self._display(self._spark.sql(rest))
        elif not magic.startswith("%md"):
            msg = f"{self.path}, line {line}: {magic} is not known here (%md, %pip, %sql are)"
            raise ConfigError(msg)

    def _run_python(self, line: int, code: str) -> None:
        exec(compile("\n" * (line - 1) + code, self.path, "exec"), self.namespace)  # noqa: S102 (the user's own file)


def _cells(text: str, path: str) -> Iterator[tuple[int, list[str]]]:
    lines = text.splitlines()
    if lines[:1] != [_HEAD]:
        msg = f"{path} is no notebook in source format: its first line is not {_HEAD!r}"
        raise ConfigError(msg)
    first, cell = 2, list[str]()
    for number, line in enumerate([*lines[1:], _CELL], 2):
        if line.strip() != _CELL:
            cell.append(line)
            continue
        if any(text.strip() for text in cell):
            yield first, cell
        first, cell = number + 1, []


def run_notebook(
    path: str | os.PathLike[str], spark: SparkSession, widgets: Mapping[str, str] | None = None
) -> NotebookRun:
    """Run a notebook from its first cell to its last, or to ``dbutils.notebook.exit``.

    Args:
        path: the notebook, a ``.py`` file in Databricks' source format.
        spark: the session, classic or Connect.
        widgets: values of its widgets, as a job's parameters give them.

    Raises:
        ConfigError: it is no such file, uses a magic that is not known here, or reads a widget
            that nobody defined. What its code raises is raised, with the notebook's own lines.

    Example:
        >>> run_notebook("train.py", spark, {"epochs": "1"}).exit_value  # doctest: +SKIP
    """
    name = os.fspath(path)
    with open(name, encoding="utf-8") as file:
        text = file.read()
    notebook = _Notebook(name, spark, widgets or {})
    exit_value = None
    try:
        for line, cell in _cells(text, name):
            notebook.run_cell(line, cell)
    except _Exit as end:
        exit_value = str(end)
    return NotebookRun(
        exit_value=exit_value,
        shown=notebook.shown,
        installed=notebook.installed,
        task_values=notebook.task_values,
        namespace=notebook.namespace,
    )

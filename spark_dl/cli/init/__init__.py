"""``spark-dl init``: a small project to begin with.

A config, a model, a script that makes a small table, tests and an Airflow DAG: it runs as it is,
and each file is short enough to be changed into yours.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import resources
from typing import TYPE_CHECKING, Final

from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

__all__ = ["add_arguments", "project_files", "run"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,60}")
#: Templates are no Python until their names are filled in, so that no tool takes them for it.
_SUFFIX: Final = ".tmpl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="name of the project, and of its folder")
    parser.add_argument("--into", metavar="FOLDER", default=".", help="where that folder is made")


def run(options: argparse.Namespace) -> int:
    """Write the project."""
    files = project_files(options.name)
    root = os.path.abspath(os.path.join(options.into, options.name))
    if os.path.exists(root) and (not os.path.isdir(root) or os.listdir(root)):
        msg = f"{root} is there already and is not empty: nothing was written; choose another name"
        raise ConfigError(msg)
    for path, text in files.items():
        target = os.path.join(root, path)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            msg = f"cannot write {target}: {error.strerror}"
            raise ConfigError(msg) from error
    where = os.path.relpath(root)
    lines = [f"  {path}" for path in sorted(files)]
    sys.stdout.write(f"{where}/\n" + "\n".join(lines) + "\n\nNext:\n")
    for step in (
        f"cd {where}",
        "python make_data.py",
        "python -m pytest",
        "spark-dl prepare --config job.yaml",
        "spark-dl train --config job.yaml",
        "spark-dl infer --config job.yaml",
    ):
        sys.stdout.write(f"  {step}\n")
    return 0


def project_files(name: str) -> dict[str, str]:
    """Return the files of a project: relative path → text.

    Args:
        name: of the project: letters, digits, ``-`` and ``_``.

    Raises:
        ConfigError: the name is none.
    """
    if not _NAME.fullmatch(name):
        msg = f"{name!r} is no name for a project: a letter, then letters, digits, '-' and '_'"
        raise ConfigError(msg)
    words = {"name": name, "dag_id": name.replace("-", "_").lower()}
    templates = resources.files(__package__).joinpath("templates")
    return {
        path.replace("PROJECT", words["dag_id"]): _fill(text, words)
        for path, text in _walk(templates, "")
    }


def _fill(text: str, words: dict[str, str]) -> str:
    for key, value in words.items():
        text = text.replace("{{" + key + "}}", value)
    return text


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _walk(item, f"{prefix}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            yield f"{prefix}{item.name.removesuffix(_SUFFIX)}", item.read_text(encoding="utf-8")

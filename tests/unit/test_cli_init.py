"""`spark-dl init`: what it writes, without running it (tests/cluster/test_cli_project.py does)."""

from __future__ import annotations

import ast
import re

import pytest
import yaml

from spark_dl.cli import main
from spark_dl.cli.init import project_files
from spark_dl.config import load_config
from spark_dl.errors import ConfigError


def test_a_project_is_whole_and_has_its_name(tmp_path, capsys):
    assert main(["init", "shop-visits", "--into", str(tmp_path)]) == 0
    root = tmp_path / "shop-visits"
    written = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert written == {
        ".gitignore",
        "README.md",
        "dags/shop_visits.py",
        "job.yaml",
        "make_data.py",
        "model.py",
        "pyproject.toml",
        "tests/test_project.py",
    }
    out = capsys.readouterr().out
    assert all(path in out for path in written)
    config = load_config(str(root / "job.yaml"))
    for job in ("prepare", "train", "infer"):
        config.check_for(job)
    assert "# shop-visits" in (root / "README.md").read_text()


def test_every_file_is_of_its_kind_and_nothing_is_left_to_fill_in():
    for path, text in project_files("a").items():
        assert not re.search(r"\{\{\w", text), path  # "{{ " is Airflow's
        if path.endswith(".py"):
            ast.parse(text)
        if path.endswith(".yaml"):
            assert yaml.safe_load(text)


def test_nothing_is_overwritten(tmp_path, capsys):
    kept = tmp_path / "mine" / "job.yaml"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert main(["init", "mine", "--into", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.read_text() for path in kept.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["", "../up", "1st", "a b", ".hidden"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="is no name"):
        project_files(name)

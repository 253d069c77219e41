"""The wheel as a user gets it: checked as for an upload, installed alone, and used."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import spark_dl
from spark_dl.versions import SPARK_LINES

pytestmark = [pytest.mark.smoke, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
DEADLINE_S = 580


def run(*command, cwd):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        env=clean,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    run(*build, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of programs of an environment that holds the wheel and nothing else."""
    home = tmp_path_factory.mktemp("empty") / "venv"
    run(sys.executable, "-m", "venv", home, cwd=home.parent)
    pip = [home / "bin" / "pip", "install", "-q", "--disable-pip-version-check"]
    run(*pip, "-c", ROOT / "constraints.txt", wheel, "twine", cwd=home.parent)
    return home / "bin"


def test_the_wheel_carries_the_connector_for_both_scalas(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    jars = {f"spark_dl/_jars/{line.connector_jar}" for line in SPARK_LINES.values()}
    assert len(jars) == 2
    assert jars <= names, "build them: make jars"


def test_it_may_be_uploaded(wheel, installed, tmp_path):
    told = run(installed / "twine", "--no-color", "check", "--strict", wheel, cwd=tmp_path)
    assert "PASSED" in told


def test_it_works_without_spark_and_tensorflow(installed, tmp_path):
    spark_dl_program = installed / "spark-dl"
    assert run(spark_dl_program, "--version", cwd=tmp_path) == f"spark-dl {spark_dl.__version__}\n"
    for line in SPARK_LINES.values():
        jar = run(spark_dl_program, "jar", "--spark", line.spark, cwd=tmp_path).strip()
        assert Path(jar).name == line.connector_jar
        with zipfile.ZipFile(jar) as archive:
            assert "io/sparkdl/tfrecord/TFRecordSource.class" in archive.namelist()
    run(spark_dl_program, "init", "shop", cwd=tmp_path)
    run(installed / "python", "make_data.py", cwd=tmp_path / "shop")
    assert '"training"' in run(spark_dl_program, "schema", cwd=tmp_path)
    assert (tmp_path / "shop" / "data" / "visits.parquet").exists()


def test_the_pages_script_and_style_came_along(installed, tmp_path):
    code = (
        "from importlib.resources import files; runs = files('spark_dl.cli.runs'); "
        "print([(runs / name).is_file() for name in ('compare.css', 'compare.js')])"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path) == "[True, True]\n"

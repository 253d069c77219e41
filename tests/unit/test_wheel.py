"""What a user installs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("METADATA"))
        return names, archive.read(metadata).decode()


def test_the_wheel_carries_the_connector(wheel):
    assert "spark_dl/_jars/spark-dl-connector_2.13-0.1.0.jar" in wheel[0]


def test_the_wheel_carries_types_and_license_and_nothing_else(wheel):
    names = wheel[0]
    assert "spark_dl/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"spark_dl", "spark_dl-0.1.0.dist-info"}


def test_the_base_install_brings_neither_spark_nor_tensorflow(wheel):
    required = [line for line in wheel[1].splitlines() if line.startswith("Requires-Dist")]
    base = [line for line in required if "extra ==" not in line]
    assert {line.split()[1].rstrip("<>=,.0123456789").lower() for line in base} == {
        "cloudpickle",
        "fsspec",
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "pyyaml",
        "tqdm",
    }

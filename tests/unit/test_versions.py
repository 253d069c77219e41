"""The matrix of versions."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spark_dl
from spark_dl.errors import ConfigError
from spark_dl.versions import (
    PRIMARY_SPARK,
    SPARK_LINES,
    connector_jar_name,
    installed_spark_line,
    spark_line,
)


@pytest.mark.parametrize(
    ("version", "scala", "delta"),
    [
        ("3.5.9", "2.12", "io.delta:delta-spark_2.12:3.3.3"),
        ("4.0.1", "2.13", "io.delta:delta-spark_4.0_2.13:4.1.0"),
        ("4.1.4", "2.13", "io.delta:delta-spark_4.1_2.13:4.1.0"),
        ("4.2.0", "2.13", "io.delta:delta-spark_4.2_2.13:4.4.0"),
        ("4.1", "2.13", "io.delta:delta-spark_4.1_2.13:4.1.0"),
        ("4.1.0-amzn-1", "2.13", "io.delta:delta-spark_4.1_2.13:4.1.0"),
    ],
)
def test_a_spark_version_finds_its_line(version, scala, delta):
    line = spark_line(version)
    assert line.scala == scala
    assert line.scala_full.startswith(f"{scala}.")
    assert line.delta_coordinates[0] == delta
    assert line.delta_coordinates[1].startswith("io.delta:delta-storage:")


@pytest.mark.parametrize("version", ["2.4.8", "5.0.0", "", "main"])
def test_an_unsupported_spark_is_refused_with_the_lines_that_are(version):
    with pytest.raises(ConfigError, match=r"supported lines: 3\.5, 4\.0, 4\.1, 4\.2"):
        spark_line(version)


def test_one_line_is_primary():
    assert [line for line in SPARK_LINES.values() if line.support == "primary"] == [PRIMARY_SPARK]


def test_the_set_up_has_the_primary_line():
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text()
    (version,) = re.findall(r"^pyspark==(\S+)$", pins, re.MULTILINE)
    assert spark_line(version) is PRIMARY_SPARK


def test_the_line_is_that_of_the_pyspark_that_is_installed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", {"pyspark": "4.0.5"}.get)
    assert installed_spark_line() is SPARK_LINES["4.0"]


def test_without_pyspark_the_primary_line_is_meant(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    assert installed_spark_line() is PRIMARY_SPARK


def test_the_jar_has_the_packages_version():
    assert connector_jar_name("2.12") == f"spark-dl-connector_2.12-{spark_dl.__version__}.jar"


#: what follows from Spark's line, that is, without the release
FOR_SBT = {
    "3.5": ["2.12.18", "delta-spark_2.12", "3.3.3"],
    "4.1": ["2.13.17", "delta-spark_4.1_2.13", "4.1.0"],
}


@pytest.mark.parametrize(
    ("arguments", "release"), [((), []), (("3.5",), ["3.5.9"]), (("4.1",), ["4.1.4"])]
)
def test_the_set_up_reads_what_sbt_needs(arguments, release):
    command = [sys.executable, "-m", "spark_dl.versions", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = arguments[0] if arguments else installed_spark_line().spark
    scala, artifact, delta = FOR_SBT[line]
    assert done.stdout.splitlines() == [
        f"export SCALA_VERSION={scala}",
        f"export SPARK_DL_VERSION={spark_dl.__version__}",
        f"export SPARK_DL_DELTA_ARTIFACT={artifact}",
        f"export SPARK_DL_DELTA_VERSION={delta}",
        *(f"export SPARK_DL_SPARK_VERSION={version}" for version in release),
    ]

"""The supported versions and the jars that belong to them: the one place that knows.

Pure. The set-up hands it to `tools/sbt`::

    eval "$(python -m spark_dl.versions)"      # the line of the pyspark that is installed
    eval "$(python -m spark_dl.versions 3.5)"  # another one, whose Spark comes from Maven
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys
from dataclasses import dataclass
from typing import Final

from spark_dl import __version__
from spark_dl.errors import ConfigError

__all__ = [
    "KERAS",
    "PRIMARY_SPARK",
    "PYTHON",
    "SPARK_LINES",
    "TENSORFLOW",
    "TENSORFLOWONSPARK",
    "SparkLine",
    "VersionRange",
    "connector_jar_name",
    "installed_spark_line",
    "shell_variables",
    "spark_line",
]

TENSORFLOWONSPARK: Final = "2.2.5"


@dataclass(frozen=True, kw_only=True)
class VersionRange:
    """Versions that are tested, as ``major.minor`` lines.

    Attributes:
        oldest: the oldest line that is tested.
        primary: the line that everything is tested on.
    """

    oldest: str
    primary: str


PYTHON: Final = VersionRange(oldest="3.11", primary="3.11")
TENSORFLOW: Final = VersionRange(oldest="2.18", primary="2.21")
KERAS: Final = VersionRange(oldest="3.0", primary="3.15")


@dataclass(frozen=True, kw_only=True)
class SparkLine:
    """One supported line of Spark, with what must fit to it.

    Attributes:
        spark: the line, ``major.minor``.
        scala: Scala's binary version of that Spark.
        scala_full: the Scala to compile with.
        delta_artifact: Delta's artifact for it (group ``io.delta``).
        delta_version: Delta's version.
        release: the release of Spark that the connector is compiled against when another line is
            installed.
        support: ``primary`` (everything is tested), ``core`` (the main job is tested) or ``smoke``
            (the jar loads).
    """

    spark: str
    scala: str
    scala_full: str
    delta_artifact: str
    delta_version: str
    release: str
    support: str

    @property
    def delta_coordinates(self) -> tuple[str, str]:
        """Maven coordinates of the jars that Delta needs, for ``spark.jars.packages``."""
        return (
            f"io.delta:{self.delta_artifact}:{self.delta_version}",
            f"io.delta:delta-storage:{self.delta_version}",
        )

    @property
    def java(self) -> tuple[int, ...]:
        """Major versions of Java that this Spark runs on."""
        return (8, 11, 17) if self.spark.startswith("3.") else (17, 21)

    @property
    def connector_jar(self) -> str:
        """File name of the connector's jar."""
        return connector_jar_name(self.scala)


SPARK_LINES: Final[dict[str, SparkLine]] = {
    line.spark: line
    for line in (
        SparkLine(
            spark="3.5",
            scala="2.12",
            scala_full="2.12.18",
            delta_artifact="delta-spark_2.12",
            delta_version="3.3.3",
            release="3.5.9",
            support="core",
        ),
        SparkLine(
            spark="4.0",
            scala="2.13",
            scala_full="2.13.17",
            delta_artifact="delta-spark_4.0_2.13",
            delta_version="4.1.0",
            release="4.0.5",
            support="smoke",
        ),
        SparkLine(
            spark="4.1",
            scala="2.13",
            scala_full="2.13.17",
            delta_artifact="delta-spark_4.1_2.13",
            delta_version="4.1.0",
            release="4.1.4",
            support="primary",
        ),
        SparkLine(
            spark="4.2",
            scala="2.13",
            scala_full="2.13.17",
            delta_artifact="delta-spark_4.2_2.13",
            delta_version="4.4.0",
            release="4.2.1",
            support="smoke",
        ),
    )
}
PRIMARY_SPARK: Final = SPARK_LINES["4.1"]


def connector_jar_name(scala: str) -> str:
    """Return the connector jar's file name for a Scala binary version.

    Example:
        >>> connector_jar_name("2.13")
        'spark-dl-connector_2.13-0.1.0.jar'
    """
    return f"spark-dl-connector_{scala}-{__version__}.jar"


def spark_line(version: str) -> SparkLine:
    """Return the supported line that a Spark version belongs to.

    Args:
        version: such as ``"4.1.4"`` or ``"4.1"``.

    Raises:
        ConfigError: that Spark is not supported; the message lists the lines that are.

    Example:
        >>> spark_line("4.1.4").scala
        '2.13'
    """
    found = re.match(r"\d+\.\d+", version)
    line = SPARK_LINES.get(found.group()) if found else None
    if line is None:
        msg = f"Spark {version} is not supported (supported lines: {', '.join(SPARK_LINES)})"
        raise ConfigError(msg)
    return line


def installed_spark_line() -> SparkLine:
    """Return the line of the pyspark that is installed here, the primary one when none is.

    Raises:
        ConfigError: the installed pyspark is not supported.
    """
    try:
        return spark_line(importlib.metadata.version("pyspark"))
    except importlib.metadata.PackageNotFoundError:
        return PRIMARY_SPARK


def shell_variables(line: SparkLine) -> dict[str, str]:
    """Return the environment variables that `tools/sbt` reads.

    Args:
        line: the Spark that jars are built or fetched for.

    Example:
        >>> shell_variables(spark_line("3.5"))["SCALA_VERSION"]
        '2.12.18'
    """
    return {
        "SCALA_VERSION": line.scala_full,
        "SPARK_DL_VERSION": __version__,
        "SPARK_DL_DELTA_ARTIFACT": line.delta_artifact,
        "SPARK_DL_DELTA_VERSION": line.delta_version,
    }


def _for_the_shell(arguments: list[str]) -> dict[str, str]:
    if not arguments:
        return shell_variables(installed_spark_line())
    line = spark_line(arguments[0])
    return {**shell_variables(line), "SPARK_DL_SPARK_VERSION": line.release}


if __name__ == "__main__":
    variables = _for_the_shell(sys.argv[1:])
    sys.stdout.writelines(
        f"export {key}={shlex.quote(value)}\n" for key, value in variables.items()
    )

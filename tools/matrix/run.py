"""Run the main job on other versions than those of the set-up: `make test-matrix`.

A row is a file of pins beside this script, e.g. ``spark-3.5.txt``; a new row is a new file. Its
environment ``.venv-<row>`` holds just these pins and our wheel, laid over the packages of
``.venv``, so that it is made in the time of their download and differs in nothing else. What is
run follows from the pins: where TensorFlow is another one, the tests without Spark and those of
learning; else the connector's suite in the JVM where the row has another Scala, its pytest suite
and the tests of scoring where Spark differs and has the support "core"; and the main job always.
A row without pins has the set-up's versions, in surroundings that its line ``# tests: …`` names.

    .venv/bin/python tools/matrix/run.py [--jars | --short] [--record] [ROW…]

``--jars`` runs the JVM's suite only. ``--short`` compiles nothing: with the connector that `make
jars` laid into the package it runs a few of its tests in Python, and the main job on one backend.
``--record`` writes the table of docs/matrix.md anew.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from spark_dl.versions import PRIMARY_SPARK, SparkLine, shell_variables, spark_line

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "matrix.md"
SHOWN = ("pyspark", "tensorflow", "keras")
CONNECTOR_TESTS = "tests/spark/test_connector.py"
PREDICTION_TESTS = tuple(
    f"tests/spark/test_{name}.py" for name in ("inference", "any_model", "evaluate", "score_stream")
)
MAIN_JOB_TESTS = "tests/clusters/matrix"
CONNECT_TEST = f"{MAIN_JOB_TESTS}/test_connect.py"
#: The set-up's own suite damages more files.
MUTATIONS = "2000"
#: A row that takes longer hangs.
DEADLINE_S = 1800


@dataclass(frozen=True)
class Row:
    """Versions that are tested together.

    Attributes:
        name: name of the row's file.
        pins: package to version, where it differs from the set-up's.
        tests: what makes up the main job there.
    """

    name: str
    pins: dict[str, str]
    tests: str

    @classmethod
    def read(cls, name: str) -> Row:
        """Read a row's file."""
        path = HERE / f"{name}.txt"
        if not path.exists():
            rows = ", ".join(all_rows())
            sys.exit(f"tools/matrix/run.py: there is no row {name!r} (rows: {rows})")
        text = path.read_text()
        pins = re.findall(r"^([\w.-]+)==([\w.]+)$", text, re.MULTILINE)
        tests = re.search(r"^# tests: (\S+)$", text, re.MULTILINE)
        return cls(name, dict(pins), tests[1] if tests else MAIN_JOB_TESTS)

    @property
    def line(self) -> SparkLine:
        """The row's Spark."""
        return spark_line(self.version("pyspark"))

    @property
    def python(self) -> Path:
        """The interpreter of the row's environment."""
        return ROOT / f".venv-{self.name}" / "bin" / "python"

    @property
    def jars(self) -> Path:
        """Where the row's jars lie."""
        other = self.has_other_spark
        return ROOT / "build" / (f"jars-spark-{self.line.spark}" if other else "jars")

    @property
    def has_other_spark(self) -> bool:
        """Whether its Spark is another one than that of the set-up."""
        return "pyspark" in self.pins

    @property
    def has_other_scala(self) -> bool:
        """Whether the connector is compiled anew for it."""
        return self.line.scala != PRIMARY_SPARK.scala

    @property
    def has_spark_suites(self) -> bool:
        """Whether Spark is what this row is about, and one that is supported wholly."""
        spark_alone = self.has_other_spark and not self.has_other_tensorflow
        return spark_alone and self.line.support != "smoke"

    @property
    def has_other_tensorflow(self) -> bool:
        """Whether TensorFlow is what this row is about."""
        return "tensorflow" in self.pins

    def version(self, package: str) -> str:
        """Return the version of a package in this row."""
        return self.pins.get(package) or importlib.metadata.version(package)


def all_rows() -> list[str]:
    """Return the names of the rows."""
    return sorted(path.stem for path in HERE.glob("*.txt"))


@dataclass
class Steps:
    """Runs the steps of a row, and remembers how long each took.

    Attributes:
        row: the row.
        seconds: of each step.
    """

    row: Row
    seconds: dict[str, int] = field(default_factory=dict)

    def run(self, step: str, *command: str, **environ: str) -> None:
        """Run a command in the checkout; it must succeed."""
        print(f"--- {self.row.name}: {step}: {' '.join(command)}", flush=True)
        start = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environ}, timeout=DEADLINE_S, check=False
        )
        self.seconds[step] = self.seconds.get(step, 0) + round(time.monotonic() - start)
        if done.returncode:
            sys.exit(
                f"tools/matrix/run.py: row {self.row.name}, {step}: exit code {done.returncode}"
            )

    def environment(self, wheel: Path) -> None:
        """Lay the wheel and the row's pins over the set-up's packages, but not this checkout."""
        home = self.row.python.parents[1]
        pins = HERE / f"{self.row.name}.txt"
        stamp = home / ".pins"
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
        if not stamp.exists() or stamp.read_text() != pins.read_text():
            self.run("environment", sys.executable, "-m", "venv", "--clear", str(home))
            self.run("environment", str(self.row.python), *pip, "-r", str(pins))
            packages = next(home.glob("lib/python*/site-packages"))
            # as a mere folder of modules: the line that makes this checkout importable is not read
            (packages / "zz-set-up.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
            stamp.write_text(pins.read_text())
        self.run("environment", str(self.row.python), *pip, "--force-reinstall", str(wheel))

    def build_jars(self) -> None:
        """Lay out the connector and Delta; test the connector where it is compiled anew."""
        if not self.row.has_other_spark:
            return
        other = self.row.has_other_scala
        environ = shell_variables(self.row.line) | {
            "SPARK_DL_JARS_DIR": str(self.row.jars),
            "PYTHON": str(self.row.python) if other else sys.executable,
            "SPARK_DL_MUTATIONS": MUTATIONS,
        }
        if not other:  # one jar for all of a Scala: that which is in the wheel
            environ["SCALA_VERSION"] = PRIMARY_SPARK.scala_full
        tasks = ["connector/test"] if other and self.row.has_spark_suites else []
        self.run("jar", "tools/sbt", *tasks, "collectJars", **environ)
        (self.row.jars / self.row.line.connector_jar).unlink()  # so that the wheel's is taken

    def connector_tests(self, marks: str) -> None:
        """Run the connector's tests in Python."""
        if self.row.has_spark_suites:
            self.pytest("connector", "-m", marks, CONNECTOR_TESTS)

    def prediction_tests(self) -> None:
        """Run the tests of scoring, which takes another way on Spark below 4.1."""
        if self.row.has_spark_suites:
            self.pytest("predictions", "-m", "spark", *PREDICTION_TESTS)

    def learning_tests(self) -> None:
        """Run what needs no Spark, and what computes."""
        if self.row.has_other_tensorflow:
            self.pytest("unit", "tests/unit")
            self.pytest("learning", "tests/training")

    def pytest(self, step: str, *arguments: str) -> None:
        """Run tests in the row's environment, with its own jars where they were built just now."""
        python = str(self.row.python)
        environ = {"PYSPARK_PYTHON": python}
        if "jar" in self.seconds:
            environ["SPARK_DL_JARS_DIR"] = str(self.row.jars)
        # -P: not this checkout's package, which lies in the working directory
        self.run(step, python, "-P", "-m", "pytest", "-q", "--no-skips", *arguments, **environ)


@dataclass(frozen=True)
class Result:
    """What docs/matrix.md tells of a row that passed.

    Attributes:
        row: name of the row.
        versions: package to version.
        day: when it was run.
        seconds: of each step.
    """

    row: str
    versions: dict[str, str]
    day: str
    seconds: dict[str, int]

    def cells(self) -> str:
        """Return the row of the page's table."""
        took = ", ".join(f"{step} {count}" for step, count in self.seconds.items())
        return f"| {' | '.join([self.row, *self.versions.values(), self.day, took])} |"


def build_wheel() -> Path:
    """Build our wheel, with the connector's jars that `make jars` laid into the package."""
    folder = ROOT / "build" / "matrix"
    for old in folder.glob("*.whl"):
        old.unlink()
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder))
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, timeout=DEADLINE_S)
    return next(folder.glob("*.whl"))


def run_row(row: Row, part: str, wheel: Path) -> Result:
    """Run a row, or a part of it; the program ends where a step fails."""
    steps = Steps(row)
    steps.environment(wheel)
    if part != "short":
        steps.build_jars()
    if part == "short":
        steps.connector_tests("spark and smoke")
        steps.pytest("main job", "-m", "matrix", "-k", "barrier", row.tests)
    elif part == "all":
        steps.connector_tests("spark")
        steps.prediction_tests()
        steps.learning_tests()
        # TensorFlow 2.18's protobuf is older than that of the set-up's packages for Connect
        without = ("--ignore", CONNECT_TEST) if row.has_other_tensorflow else ()
        steps.pytest("main job", "-m", "matrix", *without, row.tests)
    has_delta = any(row.jars.glob("delta-spark*.jar"))
    versions = {package: row.version(package) for package in SHOWN}
    versions |= {"Scala": row.line.scala, "Delta": row.line.delta_version if has_delta else "none"}
    result = Result(row.name, versions, datetime.now(UTC).date().isoformat(), steps.seconds)
    print(result.cells(), flush=True)
    return result


def record(results: list[Result]) -> None:
    """Replace the rows of the page's table that were run."""
    text = PAGE.read_text()
    for result in results:
        old = re.compile(rf"^\| {re.escape(result.row)} \|.*\n?", re.MULTILINE)
        text = f"{old.sub('', text).rstrip()}\n{result.cells()}\n"
    PAGE.write_text(text)


def main() -> int:
    """Run the rows that were asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(all_rows())}; all by default")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--jars", action="store_const", const="jars", dest="part", default="all")
    parts.add_argument("--short", action="store_const", const="short", dest="part")
    parser.add_argument("--record", action="store_true", help="write the table of docs/matrix.md")
    args = parser.parse_args()
    rows = [Row.read(name) for name in args.rows or all_rows()]
    wheel = build_wheel()
    results = [run_row(row, args.part, wheel) for row in rows]
    if args.record and args.part == "all":
        record(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

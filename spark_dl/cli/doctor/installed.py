"""Checks of what is installed: Java, Python, Spark, its jars, and the packages on both sides."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from spark_dl.cli.doctor.findings import Check, Finding, Level, error, ok, warning
from spark_dl.errors import ConfigError
from spark_dl.versions import (
    KERAS,
    PYTHON,
    SPARK_LINES,
    TENSORFLOW,
    SparkLine,
    VersionRange,
    spark_line,
)

if TYPE_CHECKING:
    from spark_dl.cli.doctor.facts import Facts, HostFacts, SessionFacts

__all__ = ["INSTALLED", "NEEDED", "ON_EXECUTORS", "PACKAGES"]

#: What a worker imports; the rest only has to be the same everywhere.
NEEDED: Final = ("spark-dl", "cloudpickle", "fsspec", "numpy", "pandas", "pyarrow", "pydantic")
_TENSORFLOW: Final = ("tensorflow", "tensorflow-cpu", "tensorflow-intel")
_ELSEWHERE: Final = (*_TENSORFLOW, "keras", "pyspark")
PACKAGES: Final = (*NEEDED, *_TENSORFLOW, "keras", "pyspark", "tensorflowonspark", "setuptools")
#: What a Python has of Spark or by itself.
_OF_PYTHON: Final = ("pyspark", "setuptools")
_FIRST_MODERN: Final = 9


def _minor(version: str) -> tuple[int, int]:
    """Return major and minor of a version, ``(0, 0)`` when it has none."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _is_in(version: str, span: VersionRange) -> bool:
    newest = max(_minor(span.oldest), _minor(span.primary))
    return _minor(span.oldest) <= _minor(version) <= (newest[0], newest[1])


def _line(version: str | None) -> SparkLine | None:
    try:
        return spark_line(version or "")
    except ConfigError:
        return None


def _java(facts: Facts) -> Finding:
    """Check the driver's Java against the Spark installed here."""
    line = _line(facts.pyspark)
    wanted = line.java if line else max(SPARK_LINES.values(), key=lambda one: one.spark).java
    versions = " or ".join(str(version) for version in wanted)
    where = f"JAVA_HOME={facts.java_home}" if facts.java_home else "PATH"
    if facts.session is not None and facts.session.is_connect:
        return ok("a Connect client needs no Java")
    if facts.java is None:
        return error(
            f"there is no java ({where})", f"install a JDK {versions}, or set JAVA_HOME to one"
        )
    found = re.search(r'version "(\d+)(?:\.(\d+))?', facts.java)
    major = int(found[1]) if found else 0
    if found and major < _FIRST_MODERN and found[2]:  # 1.8 is what others call 8
        major = int(found[2])
    if major in wanted:
        return ok(f"Java {major}")
    return error(
        f"Java {major or facts.java!r} ({where}) does not run Spark {line.spark if line else ''}",
        f"install a JDK {versions} and set JAVA_HOME to it",
    )


def _python(facts: Facts) -> Finding:
    version = facts.driver.python
    if _minor(version) < _minor(PYTHON.oldest):
        return error(
            f"Python {version} on the driver", f"make the environment with Python {PYTHON.oldest}"
        )
    return ok(f"Python {version} on the driver")


def _spark(facts: Facts) -> Finding:
    session, installed = facts.session, facts.pyspark
    version = session.version if session else installed
    supported = ", ".join(SPARK_LINES)
    if version is None:
        return error(
            "there is no pyspark here", "pip install 'spark-dl[spark]', or use spark-submit"
        )
    line = _line(version)
    if line is None:
        return error(f"Spark {version} is not supported", f"use a Spark of the lines {supported}")
    started = session.version if session else facts.spark_home
    if started and installed and _minor(installed) != _minor(started):
        return error(
            f"{'the session' if session else 'SPARK_HOME'} is Spark {started}, pyspark here is "
            f"{installed}",
            f"pip install 'pyspark=={started}', or point SPARK_HOME at Spark {installed}",
        )
    return ok(f"Spark {version} ({line.support} support)")


def _session(facts: Facts) -> Finding:
    if facts.session is None:
        if any(judge(facts).level is Level.ERROR for judge in (_java, _python, _spark)):
            return Finding(level=Level.SKIPPED, text="needs what is said above")
        return error(
            f"no Spark session: {facts.session_problem}",
            "look into the log of Spark's driver, and see that --master is reachable from here",
        )
    return ok(f"a session on {facts.session.master}")


def _of(facts: Facts) -> SessionFacts:
    if facts.session is None:  # `examine` skips these checks
        msg = "a check that needs a session was asked without one"
        raise ConfigError(msg)
    return facts.session


def _connector(facts: Facts) -> Finding:
    session = _of(facts)
    line = _line(session.version)
    if session.is_connect or line is None:
        return ok("not looked at: a Connect server brings its own jars, see its line of Spark")
    remedy = f"start the session with spark.jars={_at_hand(session, line)}"
    if session.connector is not None:
        name = os.path.basename(session.connector)
        scala = re.search(r"_(2\.\d+)-", name)
        if scala and scala[1] != line.scala:
            return error(f"{name} is for Scala {scala[1]}, this Spark has {line.scala}", remedy)
        return ok(f"TFRecord connector: {name}")
    wrong = [
        name
        for path in session.conf.get("spark.jars", "").split(",")
        if (name := os.path.basename(path)).startswith("spark-dl-connector_")
        and name.endswith(".jar")
    ]
    if wrong:
        return error(f"{wrong[0]} is in spark.jars and holds no class for this Spark", remedy)
    if session.connector_at_hand is None:
        return error(
            f"no {line.connector_jar} in the session or in this installation",
            "install the wheel of spark-dl, which carries it, or `make jars` in a checkout",
        )
    return ok(f"TFRecord connector: {line.connector_jar} is added to the session when it is used")


def _at_hand(session: SessionFacts, line: SparkLine) -> str:
    return session.connector_at_hand or f"the path that `spark-dl jar --spark {line.spark}` prints"


def _delta(facts: Facts) -> Finding:
    session = _of(facts)
    if session.delta_problem is not None:
        if not facts.wishes.uses_delta:
            return ok("this session has no Delta, and the config needs none")
        found = re.search(r"start it with (.*)", session.delta_problem)
        settings = found[1] if found else session.delta_problem
        return error("the config has Delta tables, the session has no Delta", f"set {settings}")
    line = _line(session.version)
    name = os.path.basename(session.delta_jar or "")
    version = re.search(r"-(\d+\.\d+\.\d+)\.jar$", name)
    if line and version and _minor(version[1]) != _minor(line.delta_version):
        return warning(
            f"Delta {version[1]}; Spark {line.spark} is tested with {line.delta_version}",
            f"spark.jars.packages={line.delta_coordinates[0]}",
        )
    return ok(f"Delta {version[1] if version else ''}".strip())


def _executor_job(facts: Facts) -> Finding:
    session = _of(facts)
    if session.slots == 0 and not session.is_dynamic:
        return Finding(level=Level.SKIPPED, text="needs a task slot")
    if _python_refused(facts):
        return Finding(level=Level.SKIPPED, text="needs the driver's Python on the executors")
    if not facts.executors:
        return error(
            f"a tiny job did not end well: {facts.executors_problem}",
            "see that executors start (Spark's UI, their logs) and that their Python "
            "(spark.pyspark.python, PYSPARK_PYTHON) exists on every host",
        )
    hosts = sorted({executor.host for executor in facts.executors})
    return ok(f"{len(facts.executors)} tasks answered, on {', '.join(hosts)}")


def _python_refused(facts: Facts) -> str | None:
    """Return the executors' Python, if Spark refused to run a task in it."""
    found = re.search(
        r"Python in worker has different version:? (.+?) than that in driver",
        facts.executors_problem or "",
    )
    return found[1] if found else None


def _executor_python(facts: Facts) -> Finding:
    refused = _python_refused(facts)
    if refused is not None:
        return error(
            f"Python {refused} on the executors, {facts.driver.python} on the driver",
            "give both the same: spark.pyspark.python (executors), spark.pyspark.driver.python",
        )
    if not facts.executors:
        return Finding(level=Level.SKIPPED, text="needs an answer of the executors")
    pythons = ", ".join(sorted({f"{e.python} at {e.executable}" for e in facts.executors}))
    return ok(f"Python {pythons} on the executors")


def _executor_packages(facts: Facts) -> Finding:
    for executor in facts.executors:
        missing = [name for name in NEEDED if name not in executor.packages]
        if missing:
            extra = "[tensorflow]" if _is_bare(executor) else ""
            return error(
                f"{executor.host} lacks {', '.join(missing)} ({executor.executable})",
                f"{executor.executable} -m pip install 'spark-dl{extra}=="
                f"{facts.driver.packages.get('spark-dl', '')}', or ship an environment "
                "(spark-dl submit --archive); or let spark.pyspark.python name another Python",
            )
    different = _differences(facts)
    if not different:
        return ok("the same packages on driver and executors")
    name, host, there, here = different[0]
    text = f"{name} {there} on {host}, {here} on the driver"
    if len(different) > 1:
        text += f" (and {len(different) - 1} more: {', '.join(item[0] for item in different[1:])})"
    remedy = f"pip install {name}=={here} on the executors, or ship the driver's environment"
    return error(text, remedy) if name == "spark-dl" else warning(text, remedy)


def _differences(facts: Facts) -> list[tuple[str, str, str, str]]:
    """Return package, host, version there and here, spark-dl's first."""
    found: dict[str, tuple[str, str, str, str]] = {}
    for executor in facts.executors:
        for name, there in executor.packages.items():
            here = facts.driver.packages.get(name)
            # TensorFlow and Keras have a line of their own, and so has Spark
            if here is not None and here != there and name not in _ELSEWHERE:
                found.setdefault(name, (name, executor.host, there, here))
    return sorted(found.values(), key=lambda item: (item[0] != "spark-dl", item[0]))


def _is_bare(host: HostFacts) -> bool:
    """Whether nothing was installed for us: most likely another Python is meant."""
    return not any(name in host.packages for name in PACKAGES if name not in _OF_PYTHON)


def _tensorflow(facts: Facts) -> Finding:
    if any(_is_bare(executor) for executor in facts.executors):
        return Finding(level=Level.SKIPPED, text="needs packages on the executors")
    for executor in facts.executors:
        found = _tensorflow_of(executor)
        if found is None or "keras" not in executor.packages:
            lacking = "tensorflow" if found is None else "keras"
            return error(
                f"{executor.host} has no {lacking} ({executor.executable})",
                f"{executor.executable} -m pip install 'spark-dl[tensorflow]', or ship an "
                "environment that has it",
            )
        for name, version, span in (
            ("TensorFlow", found, TENSORFLOW),
            ("Keras", executor.packages["keras"], KERAS),
        ):
            if _minor(version) < _minor(span.oldest):
                return error(
                    f"{name} {version} on {executor.host} is too old",
                    f"pip install '{name.lower()}>={span.oldest}' there",
                )
            if not _is_in(version, span):
                return warning(
                    f"{name} {version} on {executor.host} is newer than what is tested",
                    f"{name} {span.oldest} to {span.primary} is tested",
                )
    first = facts.executors[0]
    others = [e for e in facts.executors if _tensorflow_of(e) != _tensorflow_of(first)]
    if others:
        return warning(
            f"TensorFlow {_tensorflow_of(first)} on {first.host}, {_tensorflow_of(others[0])} on "
            f"{others[0].host}",
            "install the same everywhere: workers of one run talk to each other",
        )
    return ok(f"TensorFlow {_tensorflow_of(first)}, Keras {first.packages['keras']} on executors")


def _tensorflow_of(host: HostFacts) -> str | None:
    return next((host.packages[name] for name in _TENSORFLOW if name in host.packages), None)


INSTALLED: Final = (
    Check(name="java", judge=_java),
    Check(name="python", judge=_python),
    Check(name="spark", judge=_spark),
    Check(name="session", judge=_session),
    Check(name="connector", judge=_connector, needs="session"),
    Check(name="delta", judge=_delta, needs="session"),
)
ON_EXECUTORS: Final = (
    Check(name="executor job", judge=_executor_job, needs="session"),
    Check(name="executor python", judge=_executor_python, needs="session"),
    Check(name="executor packages", judge=_executor_packages, needs="executors"),
    Check(name="tensorflow", judge=_tensorflow, needs="executors"),
)

"""What a test starts a command in: the shell of somebody who has not set up Spark."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: Begins a command that a test interrupts: a shell that starts the tests in the background has
#: SIGINT ignored, in all below it.
INTERRUPTIBLE = (shutil.which("env") or "env", "--default-signal=INT")

_OF_SPARK = ("SPARK", "PYSPARK", "MASTER", "PYTHONPATH")

#: Classes of Spark that a JVM maps instead of loading them one by one: half of its start. `make`
#: writes the file; a JVM that it does not suit, as one with another class path, starts as ever.
_CLASSES = Path(__file__).parents[1] / "build" / "spark-classes.jsa"
_MAPPED = f'"-XX:SharedArchiveFile={_CLASSES}" -Xlog:cds=off -Xlog:cds+dynamic=off'
#: What YARN starts is such: without verifying classes it takes a sixth less, without G1 another.
_UNVERIFIED = "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
_JAVA_OPTIONS = f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {_UNVERIFIED} {_MAPPED}"


def start_java_quickly() -> None:
    """Have the JVMs below this process start quickly; they live for minutes and compile little."""
    given = os.environ.get("JDK_JAVA_OPTIONS", "")
    if _JAVA_OPTIONS not in given:
        os.environ["JDK_JAVA_OPTIONS"] = f"{given} {_JAVA_OPTIONS}".strip()


def plain_environ() -> dict[str, str]:
    """Return it, without what the set-up of a Spark leaves there."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_SPARK)}

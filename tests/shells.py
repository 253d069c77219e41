"""What a test starts a command in: the shell of somebody who has not set up Spark."""

from __future__ import annotations

import os
import shutil

#: Begins a command that a test interrupts: a shell that starts the tests in the background has
#: SIGINT ignored, in all below it.
INTERRUPTIBLE = (shutil.which("env") or "env", "--default-signal=INT")

_OF_SPARK = ("SPARK", "PYSPARK", "MASTER", "PYTHONPATH")


def plain_environ() -> dict[str, str]:
    """Return it; JVMs that start there compile little, as those of the tests' own sessions."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_OF_SPARK)}
    return plain | {"SPARK_CONF_DIR": os.environ["SPARK_CONF_DIR"]}

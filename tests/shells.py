"""The environment of a shell in which nobody has set up Spark."""

from __future__ import annotations

import os

_OF_SPARK = ("SPARK", "PYSPARK", "MASTER", "PYTHONPATH")


def plain_environ() -> dict[str, str]:
    """Return it; JVMs that start there compile little, as those of the tests' own sessions."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_OF_SPARK)}
    return plain | {"SPARK_CONF_DIR": os.environ["SPARK_CONF_DIR"]}

"""``whole_flow.py``, submitted as a user would."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING

import pyspark
from clusters.environment import ROOT, run
from clusters.guide import shell, user_environ
from doctors import spark_dl

from spark_dl.versions import PRIMARY_SPARK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPARK_HOME = os.path.dirname(pyspark.__file__)
PROGRAM = ROOT / "tests" / "clusters" / "whole_flow.py"
JAR = ("jar", "--spark", PRIMARY_SPARK.spark)
SETTINGS = {
    "spark.driver.memory": "768m",
    "spark.pyspark.python": sys.executable,
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
}
ON_YARN = {
    "spark.master": "yarn",
    "spark.executor.instances": "2",
    "spark.executor.memory": "512m",
    "spark.executor.memoryOverhead": "1536m",
    "spark.yarn.am.memory": "384m",
    "spark.yarn.jars": f"local:{SPARK_HOME}/jars/*",
}


def submit_flow(
    folder: Path,
    *arguments: str,
    settings: Mapping[str, str],
    environ: Mapping[str, str],
) -> dict:
    """Run the flow, which must succeed.

    Args:
        folder: the user's working directory.
        arguments: of the program.
        settings: Spark's, beside those that make the application small and run it in this
            checkout's Python.
        environ: variables of the user's shell, beside this process's.

    Returns:
        What the program told: where run and model lie, how many rows were scored, and where our
        package lies in driver and executors; and the backend, as it is logged.
    """
    given = {**SETTINGS, **settings}
    given["spark.jars"] = run(*spark_dl(given["spark.pyspark.python"]), *JAR).strip()
    flags = " ".join(f"--conf '{key}={value}'" for key, value in given.items())
    done = shell(
        f"spark-submit {flags} {PROGRAM} {' '.join(arguments)}",
        folder=folder,
        environ=user_environ(
            [os.path.join(SPARK_HOME, "bin")], {"SPARK_HOME": SPARK_HOME, **environ}
        ),
    )
    # in client mode a driver's traceback comes on stdout
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    (backend,) = re.findall(r"backend (\w+): ", done.stdout + done.stderr)
    (told,) = (line for line in done.stdout.splitlines() if line.startswith('{"run"'))
    return {**json.loads(told), "backend": backend}

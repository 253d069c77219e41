"""Every environment variable that `spark_dl` reads or sets on the driver, in one place.

(What Spark and YARN set in a container is read by one module of `cluster`.)
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "cache_folder",
    "configured_master",
    "container_class_path",
    "extra_jars_folder",
    "hadoop_conf_folder",
    "hadoop_environ",
    "installed_pyspark",
    "java_home",
    "local_folders",
    "name_token_file",
    "point_executors_at_this_python",
    "spark_home",
    "take_python_from",
    "token_file",
    "under_spark_submit",
]

_MASTER_LINE = re.compile(r"^\s*spark\.master[\s=:]+(\S+)", re.MULTILINE)


def under_spark_submit() -> bool:
    """Whether a JVM started this process and holds Spark's settings (`spark-submit`)."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def configured_master() -> str | None:
    """Return the master that the user's settings name for a new session, if any.

    Looked up in this order, as Spark does: ``--master`` in PYSPARK_SUBMIT_ARGS,
    ``spark-defaults.conf`` (in SPARK_CONF_DIR, else SPARK_HOME/conf), MASTER; then SPARK_REMOTE,
    the address of a Connect server.
    """
    submit = re.search(
        r"(?:--master[\s=]+|spark\.master=)(\S+)", os.environ.get("PYSPARK_SUBMIT_ARGS", "")
    )
    if submit:
        return submit.group(1)
    return (
        _master_in_defaults() or os.environ.get("MASTER") or os.environ.get("SPARK_REMOTE") or None
    )


def _master_in_defaults() -> str | None:
    home = spark_home()
    folder = os.environ.get("SPARK_CONF_DIR") or (os.path.join(home, "conf") if home else None)
    if folder is None:
        return None
    try:
        with open(os.path.join(folder, "spark-defaults.conf"), encoding="utf-8") as file:
            line = _MASTER_LINE.search(file.read())
    except OSError:
        return None
    return line.group(1) if line else None


def spark_home() -> str | None:
    """Return SPARK_HOME, `None` when it is not set."""
    return os.environ.get("SPARK_HOME") or None


def installed_pyspark() -> str | None:
    """Return the folder of the pyspark package installed here, `None` when there is none."""
    spec = importlib.util.find_spec("pyspark")
    return os.path.dirname(spec.origin) if spec and spec.origin else None


def java_home() -> str | None:
    """Return JAVA_HOME, `None` when it is not set: Spark takes the java on PATH then."""
    return os.environ.get("JAVA_HOME") or None


def extra_jars_folder() -> str | None:
    """Return SPARK_DL_JARS_DIR: a folder of jars that is looked through first."""
    return os.environ.get("SPARK_DL_JARS_DIR") or None


def hadoop_conf_folder() -> str | None:
    """Return HADOOP_CONF_DIR, the folder of core-site.xml; `None` when it is not set."""
    return os.environ.get("HADOOP_CONF_DIR") or None


def container_class_path() -> str | None:
    """Return the class path of the YARN container that this process is in, `None` outside."""
    if "CONTAINER_ID" not in os.environ:
        return None  # some people's shells set a CLASSPATH
    return os.environ.get("CLASSPATH") or None


def hadoop_environ() -> dict[str, str]:
    """Return the environment of a process that reads and writes Hadoop's files for this one.

    Without Kerberos, YARN's containers run as one system user, and Spark names whose job it is.
    """
    user = os.environ.get("SPARK_USER") if "CONTAINER_ID" in os.environ else None
    return {**({"HADOOP_USER_NAME": user} if user else {}), **os.environ}


def token_file() -> str | None:
    """Return SPARK_DL_TOKEN_FILE: where delegation tokens are that came later than this process."""
    return os.environ.get("SPARK_DL_TOKEN_FILE") or None


def name_token_file(path: str) -> None:
    """Set SPARK_DL_TOKEN_FILE."""
    os.environ["SPARK_DL_TOKEN_FILE"] = path


def local_folders() -> list[str]:
    """Return the folders for big temporary files that YARN or Spark names here, best first."""
    for name in ("LOCAL_DIRS", "SPARK_EXECUTOR_DIRS", "SPARK_LOCAL_DIRS"):
        separator = os.pathsep if name == "SPARK_EXECUTOR_DIRS" else ","
        if found := [part for part in os.environ.get(name, "").split(separator) if part]:
            return found
    return []


def cache_folder() -> str | None:
    """Return SPARK_DL_CACHE_DIR: where copies of remote shards and models are kept on a host."""
    return os.environ.get("SPARK_DL_CACHE_DIR") or None


def take_python_from(conf: Mapping[str, str]) -> None:
    """Let ``spark.pyspark.python`` decide in a driver that was started without spark-submit.

    Only spark-submit reads that setting; pyspark itself looks at PYSPARK_PYTHON.
    """
    if not under_spark_submit() and "spark.pyspark.python" in conf:
        os.environ["PYSPARK_PYTHON"] = conf["spark.pyspark.python"]


def point_executors_at_this_python(pyspark_folder: str) -> None:
    """Set what executors need to find this Spark and Python, where the user did not.

    Without SPARK_HOME the launcher takes the first Spark on PATH, without PYSPARK_PYTHON executors
    take the first python3 on PATH: neither need be the one that runs here.

    Args:
        pyspark_folder: folder of the pyspark package that is installed here.
    """
    os.environ.setdefault("SPARK_HOME", pyspark_folder)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

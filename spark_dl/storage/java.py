"""The Java command that serves Hadoop's file systems: which Java, which jars, which settings.

Nothing is started here. Hadoop's classes are those that Spark brings along; the cluster's settings
are on the class path of a YARN container, elsewhere in HADOOP_CONF_DIR.
"""

from __future__ import annotations

import glob
import os
import shutil
from typing import Final

from spark_dl import __version__
from spark_dl.config import environment
from spark_dl.errors import StorageError

__all__ = ["can_serve", "server_command", "server_jar"]

_SERVER: Final = "io.sparkdl.storage.FileSystemServer"
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: Small, because in a container it counts against the memory that TensorFlow has: blocks of 1 MiB
#: pass through it, nothing is kept.
_OPTIONS: Final = (
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:MaxMetaspaceSize=128m",
    "-Xshare:auto",
)


def can_serve() -> bool:
    """Whether this host has what `server_command` needs."""
    try:
        server_command()
    except StorageError:
        return False
    return True


def server_command() -> list[str]:
    """Return the command that serves Hadoop's file systems on stdin and stdout.

    Raises:
        StorageError: Java, Hadoop's classes or our jar are not here; says which, and what to do.
    """
    class_path = os.pathsep.join([server_jar(), *_hadoop_class_path()])
    return [_java(), *_OPTIONS, "-cp", class_path, _SERVER]


def server_jar() -> str:
    """Return the connector's jar, which the server's class is in; that of any Scala will do.

    Raises:
        StorageError: there is none.
    """
    own = environment.extra_jars_folder()
    folders = [
        *([own] if own else []),
        os.path.join(_PACKAGE, "_jars"),  # an installed wheel
        os.path.join(os.path.dirname(_PACKAGE), "build", "jars"),  # a checkout
        os.getcwd(),  # an executor: where Spark lays what `spark.jars` names
    ]
    name = f"spark-dl-connector_*-{__version__}.jar"
    for folder in folders:
        if found := sorted(glob.glob(os.path.join(glob.escape(folder), name))):
            return found[-1]
    msg = (
        f"HDFS needs {name}, which is in none of {', '.join(folders)}: the wheel of spark-dl "
        "carries it; else name it in spark.jars (`spark-dl jar` prints its path), or put it into "
        "a folder and set SPARK_DL_JARS_DIR"
    )
    raise StorageError(msg)


def _java() -> str:
    home = environment.java_home()
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        msg = (
            f"HDFS needs Java, but {java or 'java on PATH'} cannot be run: set JAVA_HOME, on "
            "executors by spark.executorEnv.JAVA_HOME"
        )
        raise StorageError(msg)
    return java


def _hadoop_class_path() -> list[str]:
    """Return where Hadoop's classes and the cluster's settings are.

    In a container of YARN both are what YARN says, elsewhere those of the Spark that is here.
    """
    conf = environment.hadoop_conf_folder()
    if given := environment.container_class_path():
        return [given]
    for home in (environment.spark_home(), environment.installed_pyspark()):
        if home and os.path.isdir(os.path.join(home, "jars")):
            return [*([conf] if conf else []), os.path.join(home, "jars", "*")]
    msg = (
        "HDFS needs Hadoop's classes, which come with Spark: neither is SPARK_HOME set to a "
        "folder with jars in it, nor is pyspark installed here"
    )
    raise StorageError(msg)

"""PySpark's worker daemon with TensorFlow in memory, for sessions of tests.

Spark forks its Python workers from a daemon. With this one as ``spark.python.daemon.module`` they
begin with TensorFlow and Keras imported, which each worker of its own does in seconds, and a worker
ends with every failed task. Not for work: a daemon that serves other users' tasks has no need of
either, and TensorFlow's threads must not have started before a fork, which an import alone does
not do.

Example:
    >>> SparkSession.builder.config(
    ...     "spark.python.daemon.module", "spark_dl.testing.daemon"
    ... )  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
import runpy

from spark_dl.worker_process import read_archives_once

__all__ = ["main"]

#: Spark sets it for the functions of SQL, which may score, and not for those of RDDs, which make
#: rows of lists and the like: they have a daemon of their own.
_OF_SQL = "SPARK_SIMPLIFIED_TRACEBACK"


def main() -> None:
    """Import both, then be the daemon, whose arguments are this program's."""
    if _OF_SQL in os.environ:
        for name in ("tensorflow", "keras"):
            importlib.import_module(name)
    read_archives_once()
    runpy.run_module("pyspark.daemon", run_name="__main__")


if __name__ == "__main__":
    main()

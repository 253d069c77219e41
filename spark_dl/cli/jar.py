"""``spark-dl jar``: where the connector's jar lies, for ``spark.jars``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from spark_dl._jvm import connector_jar
from spark_dl.versions import SPARK_LINES, spark_line

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--spark",
        metavar="LINE",
        help=f"its Spark ({', '.join(SPARK_LINES)}); default: the pyspark installed here",
    )


def run(options: argparse.Namespace) -> int:
    """Print the path."""
    jar = connector_jar(spark_line(options.spark) if options.spark else None)
    sys.stdout.write(f"{jar}\n")
    return 0

"""The verbs of ``spark-dl``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, cast, get_args

from spark_dl import __version__
from spark_dl._jvm import connector_jar
from spark_dl.cli.run import run_job
from spark_dl.config import JobName, json_schema
from spark_dl.errors import SparkDLError
from spark_dl.versions import SPARK_LINES, spark_line

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``spark-dl`` and return its exit code.

    Args:
        arguments: the command line without the program's name; by default this process's.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in get_args(JobName):
        return run_job(cast("JobName", words[0]), words[1:])
    options = _parser().parse_args(words)
    try:
        text = (
            json.dumps(json_schema(), indent=2) if options.verb == "schema" else _jar(options.spark)
        )
    except SparkDLError as error:
        sys.stderr.write(f"spark-dl: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{text}\n")
    return 0


def _jar(spark: str | None) -> str:
    return connector_jar(spark_line(spark) if spark else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spark-dl",
        description="Train TensorFlow models on Spark, from a table and back to a table.",
    )
    parser.add_argument("--version", action="version", version=f"spark-dl {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for job, what in (
        ("prepare", "table → TFRecord shards"),
        ("train", "shards → model"),
        ("infer", "model and table → table of predictions"),
    ):
        verbs.add_parser(job, help=what, add_help=False)
    jar = verbs.add_parser("jar", help="print the path of the TFRecord connector's jar")
    jar.add_argument(
        "--spark",
        metavar="LINE",
        help=f"its Spark ({', '.join(SPARK_LINES)}); default: the pyspark installed here",
    )
    verbs.add_parser("schema", help="print the JSON schema of the YAML, for editors")
    return parser

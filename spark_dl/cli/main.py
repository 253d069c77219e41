"""The verbs of ``spark-dl``: one module a verb, loaded when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, Final, Protocol, cast, get_args

from spark_dl import __version__
from spark_dl.cli.run import EXIT_INTERRUPTED, run_job
from spark_dl.config import JobName
from spark_dl.errors import SparkDLError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_JOBS: Final = {
    "prepare": "table → TFRecord shards",
    "train": "shards → model",
    "infer": "model and table → table of predictions",
    "evaluate": "model and table with labels → metrics, confusion matrix, a report",
}
_VERBS: Final = {
    "doctor": "check this machine and the cluster, line by line, each with a remedy",
    "init": "write a small project that runs at once",
    "submit": "print or run the spark-submit line for a config and a cluster",
    "runs": "list, show, compare, follow, stop and remove runs",
    "lineage": "say which table, dataset, run and model a table's predictions come from",
    "tensorboard": "show runs in TensorBoard, wherever they lie",
    "jar": "print the path of the TFRecord connector's jar",
    "schema": "print the JSON schema of the YAML, for editors",
}


class _Verb(Protocol):
    """What the module of a verb offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it and return the exit code."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``spark-dl`` and return its exit code.

    Args:
        arguments: the command line without the program's name; by default this process's.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in get_args(JobName):
        return run_job(cast("JobName", words[0]), words[1:])
    if not words or words[0] not in _VERBS:
        return _no_verb(words)
    verb = cast("_Verb", importlib.import_module(f"spark_dl.cli.{words[0]}"))
    parser = argparse.ArgumentParser(
        prog=f"spark-dl {words[0]}",
        description=_sentence(_VERBS[words[0]]),
        epilog=verb.__doc__.partition("\n")[2].strip() if verb.__doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_arguments(parser)
    try:
        return verb.run(parser.parse_args(words[1:]))
    except SparkDLError as error:
        sys.stderr.write(f"spark-dl {words[0]}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        sys.stderr.close()
        return 0


def _no_verb(words: Sequence[str]) -> int:
    """Answer ``--help``, ``--version`` and what is no verb."""
    known = {**_JOBS, **_VERBS}
    parser = argparse.ArgumentParser(
        prog="spark-dl",
        description="Train TensorFlow models on Spark, from a table and back to a table.",
        epilog="verbs:\n"
        + "\n".join(f"  {name:<12} {what}" for name, what in known.items())
        + "\n\nspark-dl VERB --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"spark-dl {__version__}")
    parser.add_argument("verb", metavar="VERB", help="what to do")
    options, _ = parser.parse_known_args(words)
    hint = did_you_mean(options.verb, known)
    parser.error(f"there is no verb {options.verb!r}{hint} (verbs: {', '.join(known)})")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."

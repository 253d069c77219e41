"""One job from its arguments to its exit code: parse → config → session → one pipeline call.

Exit codes: 0 done; 1 a defect of ours; 2 config, data or user code must change; 75 trying again may
help; 130 and 143 cancelled. The last line on stdout is one JSON object, also when the job failed;
logs go to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn, get_args

from spark_dl.config import JobName, load_config
from spark_dl.config.sections import Backend
from spark_dl.errors import ConfigError, InternalError, SparkDLError
from spark_dl.storage import JobState
from spark_dl.storage.status import StatusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from spark_dl.config import JobConfig

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_TERMINATED",
    "Terminated",
    "job_parser",
    "run_job",
    "sigterm_raises",
]

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143

_WHAT: Final = {
    "prepare": "write a table as TFRecord shards",
    "train": "train a model on the shards, on the cluster",
    "infer": "score a table and write the predictions",
    "evaluate": "measure a model on a table that has the labels",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM: a KeyboardInterrupt, so that both ways to cancel take one way through the code."""


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are an error like any other: last line and exit code tell of them."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise ConfigError(message)


def job_parser(job: JobName) -> argparse.ArgumentParser:
    """Return the parser of a job's arguments."""
    parser = _Parser(prog=f"spark-dl {job}", description=_WHAT[job])
    parser.add_argument("--config", metavar="FILE", help="YAML that describes the flow")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="set one value of the config, such as training.epochs=5; may be given often",
    )
    parser.add_argument(
        "--backend", choices=get_args(Backend), help="short for --set cluster.backend=…"
    )
    parser.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    return parser


def run_job(job: JobName, arguments: Sequence[str] | None = None) -> int:
    """Run a job and return its exit code.

    Args:
        job: which one.
        arguments: its command line; by default this process's.
    """
    try:
        with sigterm_raises():
            result = _run(job, arguments)
    except BaseException as error:  # noqa: BLE001 (last line and exit code tell of it)
        return _failed(job, error)
    _last_line({"job": job, **result})
    return 0


def _run(job: JobName, arguments: Sequence[str] | None) -> dict[str, Any]:
    options = job_parser(job).parse_args(arguments)
    _log_to_stderr(options.log_level)
    backend = [f"cluster.backend={options.backend}"] if options.backend else []
    config = load_config(options.config, [*options.overrides, *backend])
    config.check_for(job)
    _find_modules_beside(options.config)
    return _in_session(job, config)


def _find_modules_beside(config: str | None) -> None:
    """Let `model.fn` name a module that lies beside the config or in this folder.

    At the end of the path: nothing that is installed is hidden by a file of the user.
    """
    beside = [os.path.dirname(os.path.abspath(config))] if config else []
    sys.path += [folder for folder in [*beside, os.getcwd()] if folder not in sys.path]


def _in_session(job: JobName, config: JobConfig) -> dict[str, Any]:
    from spark_dl import pipeline
    from spark_dl.session import job_session

    steps = {
        "prepare": pipeline.run_prepare,
        "train": pipeline.run_train,
        "infer": pipeline.run_infer,
        "evaluate": pipeline.run_evaluate,
    }
    with job_session(f"spark-dl {job}") as spark:
        return steps[job](config, spark)


def _failed(job: str, error: BaseException) -> int:
    """Report what ended a job and return the exit code that it stands for."""
    if isinstance(error, SystemExit):  # --help
        return error.code if isinstance(error.code, int) else 0
    state, code = JobState.FAILED, InternalError.exit_code
    if isinstance(error, KeyboardInterrupt):
        state = JobState.CANCELLED
        code = EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED
        logger.error("%s was cancelled", job)
    elif isinstance(error, SparkDLError):
        code = error.exit_code
        state = JobState.CANCELLED if code == EXIT_INTERRUPTED else state
        logger.error("%s failed: %s", job, error)
        logger.debug("where it was raised", exc_info=error)
    else:
        logger.error("%s failed: a defect of spark-dl", job, exc_info=error)
    described = StatusError.from_exception(error).model_dump(by_alias=True)
    _last_line({"job": job, "status": state, "error": described})
    return code


def _last_line(result: dict[str, Any]) -> None:
    # JSON has no NaN and no infinity, though Python writes them: null, as in status.json
    strict = json.loads(json.dumps(result), parse_constant=lambda _name: None)
    sys.stderr.flush()
    sys.stdout.write(json.dumps(strict) + "\n")
    sys.stdout.flush()


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("py4j").setLevel(logging.WARNING)  # it logs every call to the JVM


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into `Terminated`, so that what was started is closed before the end."""

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

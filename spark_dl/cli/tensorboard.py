"""``spark-dl tensorboard``: runs in TensorBoard, wherever they lie.

Events on HDFS or in an object store are mirrored to this machine while TensorBoard runs. Ctrl-C
ends it and removes the copies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

from spark_dl.cli.run import sigterm_raises
from spark_dl.cli.runs import add_folder_arguments, runs_folder
from spark_dl.cli.runs.catalogue import find, read_all
from spark_dl.errors import ConfigError
from spark_dl.monitoring import TensorBoard
from spark_dl.monitoring.mirror import EventMirror
from spark_dl.storage import is_local

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from spark_dl.cli.runs.catalogue import Entry

__all__ = ["add_arguments", "gathered", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "run_ids", metavar="RUN", nargs="*", help="names, or `latest`; default: all trainings"
    )
    add_folder_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; no password!")
    parser.add_argument("--port", type=int, default=6006, help="0 takes a free one (default 6006)")
    parser.add_argument(
        "--every-s", type=float, default=5.0, help="seconds between two looks at remote events (5)"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    runs = runs_folder(options)
    entries = find(runs, options.run_ids) if options.run_ids else _trainings(runs)
    with contextlib.suppress(KeyboardInterrupt), sigterm_raises(), contextlib.ExitStack() as stack:
        logdir = stack.enter_context(gathered(entries, every_s=options.every_s))
        board = stack.enter_context(TensorBoard(logdir, host=options.host, port=options.port))
        sys.stdout.write(f"{len(entries)} runs in TensorBoard: {board.url} (Ctrl-C ends it)\n")
        sys.stdout.flush()
        while True:
            signal.pause()
    return 0


def _trainings(runs: str) -> list[Entry]:
    entries = [entry for entry in read_all(runs) if entry.status.job == "train"]
    if not entries:
        msg = f"there are no trainings in {runs}"
        raise ConfigError(msg)
    return entries


@contextlib.contextmanager
def gathered(entries: Sequence[Entry], *, every_s: float) -> Iterator[str]:
    """Yield one log directory with a folder a run: links to mounted events, mirrors of others."""
    with (
        tempfile.TemporaryDirectory(prefix="spark-dl-tensorboard-") as logdir,
        contextlib.ExitStack() as stack,
    ):
        for entry in entries:
            place = os.path.join(logdir, entry.run_id)
            if is_local(entry.paths.events):
                os.symlink(entry.paths.events, place)
            else:
                os.mkdir(place)
                stack.enter_context(EventMirror(entry.paths.events, place, every_s=every_s))
        yield logdir

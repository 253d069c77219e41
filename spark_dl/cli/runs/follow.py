"""``runs tail`` and ``runs stop``: following a run that somebody else runs, and ending it."""

from __future__ import annotations

import getpass
import json
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cli.runs.catalogue import SILENT_AFTER, find
from spark_dl.cli.runs.text import duration, number
from spark_dl.errors import ConfigError, TimeoutExpiredError
from spark_dl.storage import Storage
from spark_dl.storage.status import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spark_dl.cli.runs.catalogue import Entry

__all__ = ["follow", "request_stop", "wait_for_end"]

_LOOK_S: Final = 0.5


def follow(runs: str, run_id: str, *, keep_going: bool = True) -> Iterator[str]:
    """Yield what a run reports, from its beginning until it ends.

    Args:
        runs: folder of run directories.
        run_id: the run.
        keep_going: wait for more; otherwise only what is there is told.
    """
    entry = find(runs, [run_id])[0]
    attempt, told, was_silent = entry.status.attempt, 0, False
    yield f"{entry.run_id}: {entry.state(datetime.now(UTC))}, attempt {attempt}"
    pause = threading.Event()
    while True:
        entry = find(runs, [entry.run_id])[0]  # before the metrics: what ends it is written last
        if entry.status.attempt != attempt:
            attempt, told = entry.status.attempt, 0
            yield f"attempt {attempt} begins"
        lines = _metric_lines(entry)
        told = min(told, len(lines))  # a resumed run has cut its metrics back
        yield from (_render(json.loads(line)) for line in lines[told:])
        told = len(lines)
        if entry.has_ended:
            yield from _ending(entry)
            return
        if not keep_going:
            return
        is_silent = entry.is_silent(datetime.now(UTC))
        if is_silent and not was_silent:
            yield f"no sign of life of its driver for {duration(SILENT_AFTER)}; still waiting"
        was_silent = is_silent
        pause.wait(_LOOK_S)


def _metric_lines(entry: Entry) -> list[str]:
    """Return the complete lines of `metrics.jsonl`."""
    storage = Storage(entry.paths.root)
    if not storage.exists(entry.paths.metrics):
        return []
    return storage.read_text(entry.paths.metrics).split("\n")[:-1]


def _render(record: dict[str, Any]) -> str:
    known = {"time", "epoch", "step", "split", "scope"}
    values = ", ".join(
        f"{name} {'nan' if record[name] is None else number(record[name])}"
        for name in record
        if name not in known
    )
    where = f"epoch {record['epoch'] + 1}"
    where += f" step {record['step']}" if record["scope"] == "step" else f" {record['split']}"
    return f"{where}: {values}"


def _ending(entry: Entry) -> Iterator[str]:
    yield f"{entry.status.status} after {duration(entry.duration(datetime.now(UTC)))}"
    if entry.status.error is not None:
        yield f"{entry.status.error.error_class}: {entry.status.error.message}"


def request_stop(entry: Entry) -> str:
    """Ask a run to stop and return who asks.

    Raises:
        ConfigError: it is over already, or it is a job that cannot be asked.
    """
    if entry.has_ended:
        msg = f"{entry.run_id} is over already: it {entry.status.status}"
        raise ConfigError(msg)
    if entry.status.job != "train":
        msg = (
            f"{entry.run_id} is a job `{entry.status.job}`, which looks for no stop request: "
            "cancel it where it was started, or in Spark's UI"
        )
        raise ConfigError(msg)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    Storage(entry.paths.root).write_atomic(entry.paths.stop, json.dumps({"time": now(), "by": by}))
    return by


def wait_for_end(
    look: Callable[[], Entry], *, timeout_s: float, setting: str = "--timeout-s"
) -> Entry:
    """Wait until a run is over.

    Raises:
        TimeoutExpiredError: it is not; with how long its driver has been silent.
    """
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (entry := look()).has_ended:
        if time.monotonic() >= end:
            silence = entry.silence(datetime.now(UTC))
            heard = f", its driver was last heard {duration(silence)} ago" if silence else ""
            what = f"{entry.run_id} to stop (it is {entry.status.status}{heard})"
            raise TimeoutExpiredError.waiting_for(what, timeout_s, setting)
        pause.wait(_LOOK_S)
    return entry

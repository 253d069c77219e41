"""Whether a run directory is free for another try of its run, and what that try starts from."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from spark_dl.errors import ConfigError, StorageError
from spark_dl.pipeline.presence import BEAT_S
from spark_dl.runs import read_status
from spark_dl.storage import JobState, Storage

if TYPE_CHECKING:
    from spark_dl.storage import RunPaths

__all__ = ["next_attempt"]

logger = logging.getLogger(__name__)

#: A driver that misses this many heartbeats in a row is dead.
_MISSED_BEATS: Final = 4
_LOOK_S: Final = 0.5


def next_attempt(paths: RunPaths, *, silence_s: float = _MISSED_BEATS * BEAT_S) -> int:
    """Make a run directory ready for a try and return the try's number.

    A try that failed, was cancelled or lost its driver is gone on with.

    Args:
        paths: the run.
        silence_s: seconds without a heartbeat after which the driver of a run that is not over
            counts as dead.

    Raises:
        ConfigError: a driver that lives works there.
    """
    status = read_status(paths)
    if status is None:
        return 1
    if status.status not in (JobState.FAILED, JobState.CANCELLED):
        _wait_for_silence(paths, status.status, silence_s)
    storage = Storage(paths.root)
    for left in (paths.stop, paths.heartbeat):
        storage.remove(left)
    logger.info("run %s goes on: its attempt %d is %s", paths.run_id, status.attempt, status.status)
    return status.attempt + 1


def _wait_for_silence(paths: RunPaths, state: JobState, silence_s: float) -> None:
    """Wait until it is clear that the driver of a run is dead.

    Raises:
        ConfigError: it is not.
    """
    first = _heartbeat(paths)
    if _is_dead_here(first):
        return
    logger.warning(
        "run %s is %s in %s: waiting %g s for a sign of life of its driver%s",
        paths.run_id,
        state,
        paths.runs,
        silence_s,
        f" (pid {first['pid']} on {first['host']})" if first.get("pid") else "",
    )
    deadline = time.monotonic() + silence_s
    while time.monotonic() < deadline:
        now = _heartbeat(paths)
        if now and now != first:
            msg = (
                f"run {paths.run_id} is in {paths.runs} already and is {state}: its driver "
                f"(pid {now.get('pid')} on {now.get('host')}) lives; choose another run_id, or "
                f"end that run with `spark-dl runs stop {paths.run_id}`"
            )
            raise ConfigError(msg)
        time.sleep(_LOOK_S)


def _heartbeat(paths: RunPaths) -> dict[str, Any]:
    try:
        found = json.loads(Storage(paths.root).read_bytes(paths.heartbeat))
    except (StorageError, ValueError):  # none yet, or one that is being replaced
        return {}
    return found if isinstance(found, dict) else {}


def _is_dead_here(heartbeat: dict[str, Any]) -> bool:
    """Whether it is the heartbeat of a process of this host that is gone."""
    if heartbeat.get("host") != socket.gethostname() or not isinstance(heartbeat.get("pid"), int):
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(heartbeat["pid"], 0)
        except ProcessLookupError:
            return True
    return False

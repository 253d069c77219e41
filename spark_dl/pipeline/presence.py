"""A driver in its run directory: it shows that it lives, and it sees a request to stop.

Both go through files, because whoever watches a run or wants it stopped shares the storage with it
and nothing else: not its host, not its network, not its cluster manager.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING, Final, Self

from spark_dl.background import Background
from spark_dl.errors import SparkDLError
from spark_dl.storage import Storage
from spark_dl.storage.status import now

if TYPE_CHECKING:
    from types import TracebackType

    from spark_dl.storage import RunPaths

__all__ = ["BEAT_S", "Presence"]

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
#: A tenth of the silence after which `spark-dl runs` calls a run silent.
BEAT_S: Final = 12.0


class Presence:
    """Writes the run's `heartbeat` and looks for its `stop` file, in a thread of its own.

    Storage that fails for a while is logged and asked again: a run does not end for it.

    Args:
        paths: the run.
        look_s: seconds between two looks for a stop request.
        beat_s: seconds between two heartbeats.
    """

    def __init__(self, paths: RunPaths, *, look_s: float = _LOOK_S, beat_s: float = BEAT_S) -> None:
        """Write nothing yet."""
        self._paths = paths
        self._beat_s = beat_s
        self._sign = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        self._reason: str | None = None
        self._has_beaten = False
        self._is_displaced = False
        self._beaten_at: float | None = None
        self._is_failing = False
        self._looks = Background(
            self._look, every_s=look_s, name=f"presence-{paths.run_id}", at_once=True
        )

    def owns_run(self) -> bool:
        """Whether no other driver has taken the run directory over."""
        return not self._is_displaced

    def stop_reason(self) -> str | None:
        """Return who asked the run to stop, `None` while nobody has."""
        return self._reason

    def __enter__(self) -> Self:
        """Begin."""
        self._looks.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, and take both files away."""
        self._looks.close()
        if self._is_displaced:
            return
        try:
            storage = Storage(self._paths.root)
            for path in (self._paths.heartbeat, self._paths.stop):
                storage.remove(path)
        except (SparkDLError, OSError) as problem:
            logger.warning("the heartbeat of %s stays: %s", self._paths.run_id, problem)

    def _look(self) -> None:
        try:
            storage = Storage(self._paths.root)
            now_s = time.monotonic()
            if self._beaten_at is None or now_s - self._beaten_at >= self._beat_s:
                self._beaten_at = now_s
                self._beat(storage)
            if self._reason is None and storage.exists(self._paths.stop):
                self._reason = _reason(storage.read_bytes(self._paths.stop))
                logger.info("%s: %s", self._paths.run_id, self._reason)
            self._is_failing = False
        except (SparkDLError, OSError, ValueError) as problem:
            if not self._is_failing:
                logger.warning("the run directory cannot be reached: %s", problem)
            self._is_failing = True

    def _beat(self, storage: Storage) -> None:
        """Sign that the run is ours, unless somebody else has: this driver was away for long."""
        if self._has_beaten and storage.exists(self._paths.heartbeat):
            found = json.loads(storage.read_bytes(self._paths.heartbeat))
            if found.get("token") != self._sign["token"]:
                self._is_displaced = True
                who = f"pid {found.get('pid')} on {found.get('host')}"
                self._reason = f"another driver ({who}) has taken the run over"
                return
        self._has_beaten = True
        storage.write_atomic(self._paths.heartbeat, json.dumps({"time": now(), **self._sign}))


def _reason(request: bytes) -> str:
    try:
        who = json.loads(request)["by"]
    except (ValueError, LookupError, TypeError):  # `touch stop` is a request too
        return "its run directory holds a stop request"
    return f"{who} asked it to stop"

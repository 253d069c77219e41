"""Local files on their way to storage that is not mounted: logs that grow, and finished folders."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from spark_dl.errors import SparkDLError, StorageError
from spark_dl.storage.filesystem import Storage, join

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["GrowingUpload", "publish_folder"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 5.0
#: Files are written anew each time: an upload that takes long is followed by a pause so many times
#: as long.
_PAUSE_FACTOR: Final = 20
_JOIN_S: Final = 330.0


class GrowingUpload:
    """Keeps a remote folder as a local one is, in a thread of its own.

    Files that have changed are written anew as a whole, so that readers never see half of one, on
    HDFS and object stores alike. What is remote only, stays.

    Args:
        source: the local folder.
        target: the remote one.
        every_s: least seconds between two looks.
    """

    def __init__(self, source: str, target: str, *, every_s: float = _EVERY_S) -> None:
        """Write nothing yet."""
        self._source = source
        self._target = target
        self._every_s = every_s
        self._storage = Storage(target)
        self._written: dict[str, int] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._keep, name=f"upload-{target}", daemon=True)

    def update(self) -> None:
        """Write what has changed; the local files must be flushed.

        Raises:
            StorageError: it cannot be written.
        """
        with self._lock:
            for name in Storage(self._source).files(self._source):
                path = os.path.join(self._source, name)
                if (size := os.path.getsize(path)) != self._written.get(name):
                    with open(path, "rb") as file:
                        data = file.read(size)
                    self._storage.write_atomic(join(self._target, name), data)
                    self._written[name] = size

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left.

        Raises:
            StorageError: it cannot be written, and there is no error yet.
        """
        self._over.set()
        self._thread.join(_JOIN_S)
        if error is None:
            self.update()
        else:
            self._try()

    def _keep(self) -> None:
        pause_s = self._every_s
        while not self._over.wait(pause_s):
            began = time.monotonic()
            self._try()
            pause_s = max(self._every_s, _PAUSE_FACTOR * (time.monotonic() - began))

    def _try(self) -> None:
        try:
            self.update()
        except (SparkDLError, OSError) as problem:
            if not self._is_failing:
                logger.warning("%s cannot be written now: %s", self._target, problem)
            self._is_failing = True
        else:
            self._is_failing = False


def publish_folder(source: str, target: str, *, last: str) -> None:
    """Copy a finished local folder; `last` is the file that makes it complete to its readers.

    No rename is needed, which object stores do not have.

    Args:
        source: the local folder.
        target: the remote one; remains of a try that was cut off are removed.
        last: name of the file that is written at the end.

    Raises:
        StorageError: there is a complete one already, or it cannot be written.
    """
    storage = Storage(target)
    if storage.exists(join(target, last)):
        msg = f"{target} is there already; nothing was overwritten"
        raise StorageError(msg)
    storage.remove(target)
    for name in Storage(source).files(source):
        if name != last:
            storage.upload(os.path.join(source, name), join(target, name))
    with open(os.path.join(source, last), "rb") as file:
        storage.write_atomic(join(target, last), file.read())

"""Local copies of event files that grow elsewhere: TensorBoard reads mounted folders only."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final, Self

from spark_dl.background import Background
from spark_dl.errors import SparkDLError
from spark_dl.storage import Storage, join, normalise

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["EventMirror"]

logger = logging.getLogger(__name__)

_BLOCK_BYTES: Final = 1 << 22


class EventMirror:
    """Keeps a local folder as a folder on any storage is, in a thread of its own.

    Event files only grow: what is new is fetched, nothing is read twice. A file that has become
    shorter belongs to a run that started over, and is fetched anew.

    Args:
        source: the folder of events; it need not be there yet.
        target: the local folder.
        every_s: seconds between two looks.
    """

    def __init__(self, source: str, target: str, *, every_s: float = 5.0) -> None:
        """Copy nothing yet."""
        self._source = normalise(source)
        self._target = target
        self._is_failing = False
        self._looks = Background(self._try, every_s=every_s, name=f"mirror-{self._source}")

    def update(self) -> int:
        """Fetch what is new and return its bytes.

        Raises:
            StorageError: the folder cannot be read.
        """
        storage = Storage(self._source)
        if not storage.exists(self._source):
            return 0
        # what is being written has another name until it is whole
        names = [name for name in storage.files(self._source) if ".tmp-" not in name]
        return sum(self._fetch(storage, name) for name in names)

    def _fetch(self, storage: Storage, name: str) -> int:
        source, target = join(self._source, name), os.path.join(self._target, name)
        size = storage.size(source)
        have = os.path.getsize(target) if os.path.exists(target) else 0
        if size == have and have:
            return 0
        os.makedirs(os.path.dirname(target), exist_ok=True)
        start = have if have < size else 0
        with storage.open(source) as file, open(target, "ab" if start else "wb") as copy:
            file.seek(start)
            left = size - start
            # no further than the size that was asked for: the rest may be half an event
            while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
                copy.write(block)
                left -= len(block)
        return size - start - left

    def __enter__(self) -> Self:
        """Copy once, then go on in the background."""
        self._try()
        self._looks.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Copy once more and end; the copies stay."""
        self._looks.close()
        self._try()

    def _try(self) -> None:
        try:
            self.update()
        except (SparkDLError, OSError) as error:
            if not self._is_failing:
                logger.warning("the events in %s cannot be read now: %s", self._source, error)
            self._is_failing = True
        else:
            self._is_failing = False

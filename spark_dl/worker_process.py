"""Executor side: settings of a Python worker's process that make every task after them cheaper."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import platform
import sys
from typing import Final
from weakref import WeakKeyDictionary
from zipimport import zipimporter

__all__ = ["keep_freed_memory", "read_archives_once", "settle_process"]

# of glibc's malloc.h; https://man7.org/linux/man-pages/man3/mallopt.3.html
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3

#: Larger pieces of memory are mapped one by one, as before.
_LARGEST_PIECE: Final = 128 << 20
#: Most of what is free at the end of a heap that is kept.
_MOST_KEPT: Final = 256 << 20


@functools.cache
def settle_process() -> None:
    """Set all of it: once, when TensorFlow is imported and no model loaded yet."""
    keep_freed_memory()
    read_archives_once()
    # Spark has Python look for garbage after each task; what modules made is none, and much. What
    # comes later, such as a model that another one replaces, is looked at as ever.
    gc.collect()
    gc.freeze()


def keep_freed_memory() -> bool:
    """Keep what this process frees, within limits; return whether the C library can do so.

    What TensorFlow gives its operations comes from there. glibc maps each large piece anew and
    gives it back at once, so that every batch pays for all its pages again, a fifth of a small
    CNN's time. Where the library is another one nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_THRESHOLD, _LARGEST_PIECE), (_TRIM_THRESHOLD, _MOST_KEPT))
    return all(mallopt(name, value) == 1 for name, value in settings)


def read_archives_once() -> None:
    """Read the table of contents of an archive on the module search path again only if it changed.

    Spark has Python forget where modules lie before each task (until SPARK-54744). For archives
    Python 3.10 and 3.11 then read all names in them at once, for each package in one of its own
    (https://github.com/python/cpython/issues/103200): those of `pyspark.zip` and of Spark's jar
    take a quarter of a second, longer than a small task.
    """
    if sys.version_info >= (3, 12) or hasattr(zipimporter.invalidate_caches, "__wrapped__"):
        return
    read_again = zipimporter.invalidate_caches
    seen: WeakKeyDictionary[zipimporter, tuple[int, int] | None] = WeakKeyDictionary()

    @functools.wraps(read_again)
    def if_changed(self: zipimporter) -> None:
        try:
            facts = os.stat(self.archive)
            stamp = (facts.st_mtime_ns, facts.st_size)
        except OSError:
            stamp = None
        if stamp is None or seen.get(self) != stamp:
            read_again(self)
            seen[self] = stamp

    zipimporter.invalidate_caches = if_changed  # type: ignore[method-assign]

"""One small interface over the file systems that runs and datasets lie on.

Everything goes through fsspec: local and NFS paths (``dbfs:/`` and ``/Volumes`` are mounts) always
    work, other schemes
work where their fsspec client is installed. TensorFlow never opens a path of its own accord: it
knows neither ``hdfs://`` nor ``s3://``.
"""

from __future__ import annotations

import os
import posixpath
import uuid
from datetime import UTC
from typing import IO, TYPE_CHECKING, Any

import fsspec

from spark_dl.errors import StorageError

if TYPE_CHECKING:
    from datetime import datetime

    from fsspec.spec import AbstractFileSystem

__all__ = ["Storage", "is_local", "join", "local_path", "normalise", "spark_uri"]


def normalise(path: str | os.PathLike[str]) -> str:
    """Return `path` as an absolute local path or a URI, without a trailing slash.

    Args:
        path: a local path (relative ones are taken from the current directory), ``file:`` URI,
            ``dbfs:/`` path (becomes its mount ``/dbfs/``) or a URI of another scheme.

    Example:
        >>> normalise("file:///data/runs/"), normalise("dbfs:/runs"), normalise("s3://bucket/x/")
        ('/data/runs', '/dbfs/runs', 's3://bucket/x')
    """
    text = os.fspath(path)
    if text.startswith("dbfs:/"):
        text = "/dbfs/" + text.removeprefix("dbfs:").lstrip("/")
    elif text.startswith("file:"):
        text = "/" + text.removeprefix("file:").lstrip("/")
    if "://" in text:
        return text.rstrip("/")
    return os.path.abspath(os.path.expanduser(text))


def join(base: str, *parts: str) -> str:
    """Join path parts below `base`, which may be a URI."""
    return posixpath.join(base, *parts)


def is_local(path: str) -> bool:
    """Whether a normalised path lies on a mounted file system."""
    return "://" not in path


def spark_uri(path: str) -> str:
    """Return a normalised path for Spark: a local one stays local whatever its default is."""
    return f"file://{path}" if is_local(path) else path


def local_path(path: str | os.PathLike[str]) -> str:
    """Return `path` normalised.

    Raises:
        StorageError: the path is not on a mounted file system.
    """
    text = normalise(path)
    if not is_local(text):
        msg = (
            f"{text} must lie on a file system that driver and executors have mounted (a local or "
            "NFS path)"
        )
        raise StorageError(msg)
    return text


class Storage:
    """The file system of one path.

    Args:
        path: any path on it; later calls take paths on the same file system.

    Raises:
        StorageError: the scheme's client library is not installed or cannot be loaded.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Connect to the file system of `path`."""
        self.root = normalise(path)
        try:
            self._fs: AbstractFileSystem = fsspec.core.url_to_fs(self.root)[0]
        except (ImportError, ValueError, OSError) as error:
            scheme = self.root.partition("://")[0]
            msg = (
                f"cannot open {self.root}: no working client for {scheme}:// here ({error}); "
                f"install the fsspec package for {scheme}"
            )
            raise StorageError(msg) from error

    def open(self, path: str, mode: str = "rb") -> IO[Any]:
        """Open a file; writing makes missing folders."""
        if "w" in mode or "a" in mode:
            self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        try:
            file: IO[Any] = self._fs.open(path, mode)
        except FileNotFoundError as error:
            msg = f"no such file: {path}"
            raise StorageError(msg) from error
        return file

    def read_bytes(self, path: str) -> bytes:
        """Return a whole file.

        Raises:
            StorageError: there is no such file.
        """
        with self.open(path) as file:
            data: bytes = file.read()
        return data

    def read_text(self, path: str) -> str:
        """Return a whole UTF-8 file."""
        return self.read_bytes(path).decode()

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return bool(self._fs.exists(path))

    def size(self, path: str) -> int:
        """Return a file's length in bytes."""
        return int(self._fs.size(path))

    def files(self, folder: str) -> list[str]:
        """Return the paths of all files below `folder`, relative to it, sorted."""
        root = self._fs._strip_protocol(folder).rstrip("/") + "/"  # noqa: SLF001 - fsspec's own name
        return sorted(str(path).removeprefix(root) for path in self._fs.find(folder))

    def last_change(self, folder: str) -> datetime | None:
        """Return when a folder or anything in it last changed, in UTC; `None` if nobody knows."""
        times = []
        for path in (folder, *self._fs.find(folder, withdirs=True)):
            try:
                time: datetime = self._fs.modified(path)
            except (OSError, NotImplementedError, KeyError):  # gone already, or it has no time
                continue
            times.append(time if time.tzinfo else time.replace(tzinfo=UTC))
        return max(times, default=None)

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; empty when there is no such folder."""
        if not self._fs.isdir(path):
            return []
        return sorted(
            posixpath.basename(str(name).rstrip("/")) for name in self._fs.ls(path, detail=False)
        )

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder; nothing happens when it is not there."""
        if self._fs.exists(path):
            self._fs.rm(path, recursive=True)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it.

        Raises:
            StorageError: it cannot be made.
        """
        try:
            self._fs.makedirs(path, exist_ok=True)
        except OSError as error:
            msg = f"cannot make the folder {path}: {error}"
            raise StorageError(msg) from error

    def write_atomic(self, path: str, data: bytes | str) -> None:
        """Write a file so that a reader sees either the old content or the new, never half of it.

        Raises:
            StorageError: it cannot be written; nothing is left behind.
        """
        raw = data.encode() if isinstance(data, str) else data
        temporary = f"{path}.tmp-{uuid.uuid4().hex[:8]}"
        try:
            with self.open(temporary, "wb") as file:
                file.write(raw)
            self._fs.mv(temporary, path)
        except OSError as error:
            self._fs.rm(temporary) if self._fs.exists(temporary) else None
            msg = f"cannot write {path}: {error}"
            raise StorageError(msg) from error

    def commit(self, temporary: str, final: str) -> None:
        """Give a finished folder its final name.

        Raises:
            StorageError: the final name is taken, or the rename failed.
        """
        if self._fs.exists(final):
            msg = f"{final} is there already; nothing was overwritten"
            raise StorageError(msg)
        try:
            self._fs.mv(temporary, final, recursive=True)
        except OSError as error:
            msg = f"cannot rename {temporary} to {final}: {error}"
            raise StorageError(msg) from error

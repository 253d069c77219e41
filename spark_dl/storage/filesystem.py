"""One small interface over the file systems that runs and datasets lie on.

Everything goes through fsspec: local and NFS paths (``dbfs:/`` and ``/Volumes`` are mounts) always
work, ``hdfs://`` and ``viewfs://`` where Spark's jars are (`hadoop`), other schemes where their
fsspec client is installed. TensorFlow never opens a path of its own accord: it knows neither
``hdfs://`` nor ``s3://``.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import uuid
from datetime import UTC
from typing import IO, TYPE_CHECKING, Any, Final

import fsspec

from spark_dl.errors import SparkDLError, StorageError, StorageUnreachableError
from spark_dl.storage.bridge import BLOCK_BYTES
from spark_dl.storage.hadoop import HadoopFileSystem
from spark_dl.storage.java import can_serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from fsspec.spec import AbstractFileSystem

__all__ = ["Storage", "is_local", "join", "local_path", "normalise", "spark_uri"]

#: Schemes that Hadoop may know where no fsspec package is installed for them.
_HADOOP_TOO: Final = ("s3a", "abfs", "abfss", "gs")
_S3: Final = ("s3", "s3a")
_WITH_RENAME: Final = ("hdfs://", "viewfs://")
_BLOCK_BYTES: Final = 1 << 22


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
        scheme, _, rest = text.partition("://")
        return f"{scheme}://{rest.rstrip('/') or '/'}"
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


def _client(root: str) -> AbstractFileSystem:
    """Return the client for a path: Hadoop's own where only that will do, else fsspec's."""
    scheme = root.partition("://")[0] if "://" in root else "file"
    if scheme in HadoopFileSystem.protocol:
        return HadoopFileSystem()
    try:
        # listings are never kept: others write to the same folders
        options = {} if scheme == "file" else {"use_listings_cache": False}
        client: AbstractFileSystem = fsspec.core.url_to_fs(root, **options)[0]
    except (ImportError, ValueError, OSError) as error:
        if scheme in _HADOOP_TOO and can_serve():
            return HadoopFileSystem()
        extra = "spark-dl[s3]" if scheme in _S3 else f"the fsspec package for {scheme}"
        msg = (
            f"cannot open {root}: no working client for {scheme}:// here ({error}); install {extra}"
        )
        raise StorageError(msg) from error
    return client


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Say of an error of the operating system's, or of a client's own, what was to be done."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f"cannot {what}: no such file: {error}"
        raise StorageError(msg) from error
    except (ConnectionError, TimeoutError) as error:
        msg = f"cannot {what}: the file system does not answer: {error}"
        raise StorageUnreachableError(msg) from error
    except OSError as error:
        msg = f"cannot {what}: {error}"
        if "ClassNotFoundException" in msg:  # Hadoop's, of a scheme whose jar it lacks
            msg += (
                "; install spark-dl[s3] or what fsspec asks for with that scheme, or put Hadoop's "
                "jar for it on Spark's class path"
            )
        raise StorageError(msg) from error
    except SparkDLError:
        raise
    except Exception as error:  # not an OSError: botocore's NoCredentialsError, say
        msg = f"cannot {what}: {type(error).__name__}: {error}"
        kind = StorageUnreachableError if _is_of_the_network(error) else StorageError
        raise kind(msg) from error


def _is_of_the_network(error: Exception) -> bool:
    """Whether a client library (botocore) found no way to its server."""
    return not {"ConnectionError", "HTTPClientError"}.isdisjoint(
        base.__name__ for base in type(error).__mro__
    )


class Storage:
    """The file system of one path.

    Args:
        path: any path on it; later calls take paths on the same file system.

    Raises:
        StorageError: the scheme's client library is not installed or cannot be loaded.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Find the client; nothing is asked of the file system yet."""
        self.root = normalise(path)
        self._fs: AbstractFileSystem = _client(self.root)
        #: Object stores copy where a file system renames; but there a file appears whole.
        self._can_rename = is_local(self.root) or self.root.startswith(_WITH_RENAME)

    def open(self, path: str, mode: str = "rb") -> IO[Any]:
        """Open a file; writing makes missing folders.

        Raises:
            StorageError: there is no such file, or it cannot be opened.
        """
        try:
            with _telling(f"open {path}"):
                return self._open(path, mode)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                msg = f"no such file: {path}"
                raise StorageError(msg) from error.__cause__
            raise

    def _open(self, path: str, mode: str) -> IO[Any]:
        if "w" in mode or "a" in mode:
            self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
        file: IO[Any] = self._fs.open(path, mode)
        return file

    def read_bytes(self, path: str) -> bytes:
        """Return a whole file.

        Raises:
            StorageError: there is no such file, or it cannot be read.
        """
        with self.open(path) as file, _telling(f"read {path}"):
            data: bytes = file.read()
        return data

    def read_text(self, path: str) -> str:
        """Return a whole UTF-8 file."""
        return self.read_bytes(path).decode()

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        with _telling(f"look for {path}"):
            return bool(self._fs.exists(path))

    def size(self, path: str) -> int:
        """Return a file's length in bytes."""
        with _telling(f"look at {path}"):
            return int(self._fs.size(path))

    def files(self, folder: str) -> list[str]:
        """Return the paths of all files below `folder`, relative to it, sorted."""
        root = self._fs._strip_protocol(folder).rstrip("/") + "/"  # noqa: SLF001 - fsspec's own name
        with _telling(f"list {folder}"):
            return sorted(str(path).removeprefix(root) for path in self._fs.find(folder))

    def last_change(self, folder: str) -> datetime | None:
        """Return when a folder or anything in it last changed, in UTC; `None` if nobody knows."""
        times = []
        with _telling(f"list {folder}"):
            paths = (folder, *self._fs.find(folder, withdirs=True))
        for path in paths:
            try:
                time: datetime = self._fs.modified(path)
            except (OSError, NotImplementedError, KeyError):  # gone already, or it has no time
                continue
            times.append(time if time.tzinfo else time.replace(tzinfo=UTC))
        return max(times, default=None)

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; empty when there is no such folder."""
        with _telling(f"list {path}"):
            if not self._fs.isdir(path):
                return []
            names = self._fs.ls(path, detail=False)
        return sorted(posixpath.basename(str(name).rstrip("/")) for name in names)

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder; nothing happens when it is not there."""
        with _telling(f"remove {path}"):
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it.

        Raises:
            StorageError: it cannot be made.
        """
        with _telling(f"make the folder {path}"):
            self._fs.makedirs(path, exist_ok=True)

    def write_atomic(self, path: str, data: bytes | str) -> None:
        """Write a file so that a reader sees either the old content or the new, never half of it.

        Raises:
            StorageError: it cannot be written; nothing is left behind.
        """
        raw = data.encode() if isinstance(data, str) else data
        # what lies in an object store appears when it is complete: no rename, which copies there
        written = f"{path}.tmp-{uuid.uuid4().hex[:8]}" if self._can_rename else path
        with _telling(f"write {path}"):
            if isinstance(self._fs, HadoopFileSystem) and len(raw) <= BLOCK_BYTES:
                self._fs.write_whole(path, raw, written=written)
                return
            try:
                with self._open(written, "wb") as file:
                    file.write(raw)
                if written != path:
                    self._fs.mv(written, path)
            except OSError:
                if written != path:
                    self._discard(written)
                raise

    def _discard(self, path: str) -> None:
        with contextlib.suppress(OSError):  # the error that led here says more
            if self._fs.exists(path):
                self._fs.rm(path)

    def commit(self, temporary: str, final: str) -> None:
        """Give a finished folder its final name.

        Raises:
            StorageError: the final name is taken, or the rename failed.
        """
        with _telling(f"rename {temporary} to {final}"):
            if self._fs.exists(final):
                msg = f"{final} is there already; nothing was overwritten"
                raise StorageError(msg)
            if self._can_rename:
                self._fs.mv(temporary, final, recursive=True)
                return
            for name in self.files(temporary):
                self._fs.copy(join(temporary, name), join(final, name))
            self._fs.rm(temporary, recursive=True)

    def move(self, source: str, target: str) -> None:
        """Move a file, in the place of one that is there; missing folders are made.

        Raises:
            StorageError: it cannot be read or written.
        """
        with _telling(f"move {source} to {target}"):
            self._fs.makedirs(posixpath.dirname(target), exist_ok=True)
            self._fs.mv(source, target)

    def download(self, path: str, target: str) -> None:
        """Copy a file to this host.

        Args:
            path: the file.
            target: where to, a local path; its folder is there.

        Raises:
            StorageError: it cannot be read or written.
        """
        with (
            _telling(f"copy {path} to {target}"),
            self._open(path, "rb") as file,
            open(target, "wb") as copy,
        ):
            shutil.copyfileobj(file, copy, _BLOCK_BYTES)

    def upload(self, source: str, path: str) -> None:
        """Copy a local file to this file system, in the place of one that is there.

        A reader may see half of it: write another file, by `write_atomic`, once it is whole.

        Args:
            source: a local path.
            path: where to.

        Raises:
            StorageError: it cannot be read or written.
        """
        with (
            _telling(f"copy {source} to {path}"),
            open(source, "rb") as file,
            self._open(path, "wb") as copy,
        ):
            shutil.copyfileobj(file, copy, _BLOCK_BYTES)

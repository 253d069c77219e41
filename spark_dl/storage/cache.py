"""Copies of remote files on this host, shared by its processes.

TensorFlow reads mounted files only, and shards are mapped: so what lies on HDFS or in an object
store is copied once a host. A copy is named by the checksum of its content, so that equal files are
one and a changed one is another; it is checked while it is copied, and again when it is used later.
Locks are the kernel's (`flock`): they end with their holder, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from spark_dl.config.environment import cache_folder, local_folders
from spark_dl.errors import ConfigError, StorageError
from spark_dl.storage.bridge import close_shared_bridge
from spark_dl.storage.checksum import folder_checksum
from spark_dl.storage.filesystem import Storage, is_local, join, normalise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spark_dl.config import StorageConfig

__all__ = ["HostCache", "check_room", "default_folder", "host_cache", "local_copy"]

_BLOCK_BYTES: Final = 1 << 20
_LOOK_S: Final = 0.1
#: Generous: whoever holds a lock copies, and each of its calls has a deadline of its own.
_WAIT_S: Final = 3600.0
#: What is left free on the disk for everybody else.
_RESERVE_BYTES: Final = 1 << 30
_PARTIAL: Final = ".partial"
_GB: Final = 1e9


def default_folder() -> str:
    """Return where copies are kept unless the config says otherwise.

    SPARK_DL_CACHE_DIR, else below the folder that YARN (which removes it with the application) or
    Spark names for big temporary files, else below the system's own.
    """
    if folder := cache_folder():
        return folder
    for folder in local_folders():
        if os.access(folder, os.W_OK):
            return os.path.join(folder, "spark-dl-cache")
    return os.path.join(tempfile.gettempdir(), f"spark-dl-cache-{os.getuid()}")


def host_cache(config: StorageConfig) -> HostCache:
    """Return this host's copies, where and as many as the config says."""
    limit = config.cache_gb
    return HostCache(config.cache_folder, limit_bytes=None if limit is None else int(limit * _GB))


def check_room(config: StorageConfig, folder: str, size: int) -> None:
    """Check that a host may keep all copies that its workers will ask for, before they do.

    Args:
        config: how many that are.
        folder: of the shards, on any storage.
        size: of the shards, in bytes.

    Raises:
        ConfigError: it may not.
    """
    limit = config.cache_gb
    if limit is None or is_local(normalise(folder)) or size <= int(limit * _GB):
        return
    msg = (
        f"the shards in {folder} that are trained and validated have {size / _GB:.3g} GB, and each "
        f"host that has workers keeps a copy: storage.cache_gb is {limit:g}, raise it"
    )
    raise ConfigError(msg)


@contextlib.contextmanager
def local_copy(folder: str, checksum: str) -> Iterator[str]:
    """Yield a folder on this host: the folder itself where it is mounted, else its copy.

    Args:
        folder: the folder, on any storage.
        checksum: as `folder_checksum` gives it; a mounted folder is not held against it.

    Raises:
        StorageError: it cannot be copied, or is another one than the checksum says.
    """
    root = normalise(folder)
    if is_local(root):
        yield root
        return
    with HostCache().folder_of(root, checksum) as copy:
        close_shared_bridge()  # its memory is better used by the model
        yield copy


@dataclass(frozen=True, kw_only=True)
class _Entry:
    path: str
    size: int
    used: float


class HostCache:
    """A folder of copies, the least recently used of which make room for new ones.

    Args:
        folder: where; `None` is `default_folder`.
        limit_bytes: most bytes that the copies may take together; `None` leaves a GiB of the disk
            free.
        wait_s: most seconds to wait for another process that copies the same file.

    Raises:
        StorageError: the folder cannot be made, or belongs to another user.

    Example:
        >>> cache = HostCache("/data/copies", limit_bytes=10**9)  # doctest: +SKIP
        >>> with cache.open("hdfs:///d/part-0", size=9, checksum=sha) as copy:  # doctest: +SKIP
        ...     copy.read()
    """

    def __init__(
        self,
        folder: str | None = None,
        *,
        limit_bytes: int | None = None,
        wait_s: float = _WAIT_S,
    ) -> None:
        """Make the folder."""
        self.folder = folder or default_folder()
        self.limit_bytes = limit_bytes
        self._wait_s = wait_s
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            owner = os.stat(self.folder).st_uid
        except OSError as error:
            msg = f"cannot make the folder of local copies {self.folder}: {error}; {_ELSEWHERE}"
            raise StorageError(msg) from error
        if owner != os.getuid():
            msg = f"the folder of local copies {self.folder} is another user's; {_ELSEWHERE}"
            raise StorageError(msg)

    def open(self, path: str, *, size: int, checksum: str) -> IO[bytes]:
        """Return the local copy of a file, copied now if it is not there yet.

        As long as the returned file, or a map of it, is open the copy makes room for no other.

        Args:
            path: the file, on any storage.
            size: its length in bytes.
            checksum: ``sha256:<hex>`` of its content.

        Raises:
            StorageError: it cannot be read, is another one than the checksum says, or has no room.
        """
        copy = self._place(checksum)
        with self._lock(f"{os.path.basename(copy)[:2]}.lock"):
            file = _usable(copy, size, checksum)
            if file is None:
                self._copy_file(path, copy, size, checksum)
                file = open(copy, "rb")  # noqa: SIM115 - the caller closes it
                fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(copy)
        return file

    @contextlib.contextmanager
    def folder_of(self, path: str, checksum: str) -> Iterator[str]:
        """Yield the local copy of a folder, copied now if it is not there yet.

        Args:
            path: the folder, on any storage.
            checksum: as `folder_checksum` gives it.

        Raises:
            StorageError: it cannot be read, is another one than the checksum says, or has no room.
        """
        copy = self._place(checksum) + ".folder"
        with self._lock(f"{os.path.basename(copy)[:2]}.lock"):
            if not (os.path.isdir(copy) and folder_checksum(copy) == checksum):
                self._copy_folder(path, copy, checksum)
            held = os.open(copy, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_SH)
        try:
            os.utime(copy)
            yield copy
        finally:
            os.close(held)

    def _place(self, checksum: str) -> str:
        return os.path.join(self.folder, checksum.removeprefix("sha256:"))

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with open(os.path.join(self.folder, name), "wb") as file:
            deadline = time.monotonic() + self._wait_s
            while not _try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    msg = (
                        f"another process has held {file.name} for {self._wait_s:g} s: it copies "
                        "the same files and does not get on"
                    )
                    raise StorageError(msg)
                time.sleep(_LOOK_S)
            yield

    def _copy_file(self, path: str, copy: str, size: int, checksum: str) -> None:
        partial = f"{copy}.{os.getpid()}{_PARTIAL}"
        with open(partial, "wb") as target, _removed_on_error(partial):
            fcntl.flock(target, fcntl.LOCK_EX)
            self._make_room(size, partial, path)
            with Storage(path).open(path) as source:
                found = _copy_hashing(source, target)
            if found != checksum:
                msg = (
                    f"{path} is damaged: its checksum is {found}, {checksum} is expected; "
                    "nothing was kept of it"
                )
                raise StorageError(msg)
            target.flush()
            os.replace(partial, copy)

    def _copy_folder(self, path: str, copy: str, checksum: str) -> None:
        storage = Storage(path)
        names = storage.files(path)
        partial = f"{copy}.{os.getpid()}{_PARTIAL}"
        _remove(partial)  # of a process that had our number once
        with _removed_on_error(partial):
            os.mkdir(partial)
            held = os.open(partial, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX)
                size = sum(storage.size(join(path, name)) for name in names)
                self._make_room(size, partial, path)
                for name in names:
                    target = os.path.join(partial, name)
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    storage.download(join(path, name), target)
                if (found := folder_checksum(partial)) != checksum:
                    msg = f"{path} has changed: its checksum is {found}, {checksum} is expected"
                    raise StorageError(msg)
                shutil.rmtree(copy, ignore_errors=True)
                os.rename(partial, copy)
            finally:
                os.close(held)

    def _make_room(self, size: int, partial: str, path: str) -> None:
        """Remove what was used least recently until there is room, and reserve it.

        Raises:
            StorageError: there is no room even so; says whose limit it is.
        """
        with self._lock("room.lock"):
            entries = sorted(self._entries(), key=lambda entry: entry.used)
            while (lack := self._lacks(size, entries)) and (oldest := _first_unused(entries)):
                entries.remove(oldest)
                _remove(oldest.path)
            if lack:
                msg = f"no room for a copy of {path} ({size} bytes): {lack}"
                raise StorageError(msg)
            if os.path.isfile(partial):
                os.truncate(partial, size)  # counts for others from now on

    def _entries(self) -> Iterator[_Entry]:
        for item in os.scandir(self.folder):
            if item.name.endswith(".lock"):
                continue
            with contextlib.suppress(FileNotFoundError):
                yield _Entry(path=item.path, size=_size(item.path), used=item.stat().st_mtime)

    def _lacks(self, size: int, entries: list[_Entry]) -> str | None:
        """Say why there is no room; `None` where there is."""
        have = sum(entry.size for entry in entries)
        if self.limit_bytes is not None:
            if have + size <= self.limit_bytes:
                return None
            return (
                f"the copies in {self.folder} that are in use have {have} bytes, and may have "
                f"{self.limit_bytes} together; raise storage.cache_gb"
            )
        free = shutil.disk_usage(self.folder).free
        if free >= size + _RESERVE_BYTES:
            return None
        return f"the disk of {self.folder} has {free} bytes left; {_ELSEWHERE}"


_ELSEWHERE: Final = "name a folder of a larger disk by storage.cache_folder or SPARK_DL_CACHE_DIR"


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _usable(copy: str, size: int, checksum: str) -> IO[bytes] | None:
    """Return a copy that is there and whole, locked; what is damaged is removed."""
    try:
        file = open(copy, "rb")  # noqa: SIM115 - returned open
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    if os.fstat(file.fileno()).st_size == size and _checksum(file) == checksum:
        file.seek(0)
        return file
    file.close()
    os.unlink(copy)
    return None


def _checksum(file: IO[bytes]) -> str:
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]  # typeshed wants readinto


def _copy_hashing(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
        target.write(block)
    target.truncate()
    return f"sha256:{digest.hexdigest()}"


@contextlib.contextmanager
def _removed_on_error(path: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _remove(path)
        raise


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _size(path: str) -> int:
    if not stat.S_ISDIR(os.stat(path).st_mode):
        return os.stat(path).st_size
    files = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(os.path.getsize(file) for file in files)


def _first_unused(entries: list[_Entry]) -> _Entry | None:
    """Return the first entry that no process has open."""
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            held = os.open(entry.path, os.O_RDONLY)
            try:
                if _try_lock(held):
                    return entry
            finally:
                os.close(held)
    return None

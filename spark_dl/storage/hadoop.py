"""Hadoop's file systems for fsspec: `hdfs://`, `viewfs://` and what else the cluster knows.

Unlike fsspec's own client it needs no libhdfs: the files pass through a small JVM (`bridge`). Paths
stay whole URIs, because one JVM serves several file systems.
"""

from __future__ import annotations

import contextlib
import posixpath
import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from spark_dl.storage.bridge import BLOCK_BYTES, shared_bridge, text

if TYPE_CHECKING:
    from spark_dl.storage.bridge import Bridge, Reader

__all__ = ["HadoopFileSystem"]

_HANDLE: Final = struct.Struct(">i")
_HANDLE_AND_SIZE: Final = struct.Struct(">iq")
_READ: Final = struct.Struct(">iqi")
_COUNT: Final = struct.Struct(">i")
_STATUS: Final = struct.Struct(">?qq")
_FLAG: Final = struct.Struct(">?")

#: fsspec writes in pieces of this size, and reads ahead as much.
_BUFFER_BYTES: Final = 4 * BLOCK_BYTES


class HadoopFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """A file system that Hadoop knows; every instance uses this process's bridge."""

    protocol: ClassVar[tuple[str, ...]] = ("hdfs", "viewfs")
    root_marker = ""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        text = str(path)
        scheme, separator, rest = text.partition("://")
        if not separator:
            return text
        return f"{scheme}://{rest.rstrip('/') or '/'}"

    def info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - fsspec's signature
        """Return what is known of a file or folder: name, size, type, mtime.

        Raises:
            FileNotFoundError: there is none.
            OSError: the file system cannot say.
        """
        path = self._strip_protocol(path)
        return _info(path, shared_bridge().call(b"S", text(path)))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401, FBT001, FBT002 - as above
        """Return what is in a folder, or the file itself; as `info` has it, or only the names."""
        path = self._strip_protocol(path)
        answer = shared_bridge().call(b"L", text(path))
        (count,) = answer.take(_COUNT)
        found = [_info(posixpath.join(path, answer.text()), answer) for _number in range(count)]
        is_itself = [entry["name"] for entry in found] == [f"{path}/{posixpath.basename(path)}"]
        if is_itself and not self.isdir(path):
            found = [self.info(path)]
        return found if detail else [entry["name"] for entry in found]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,  # noqa: FBT001, FBT002 - fsspec's signature
        detail: bool = False,  # noqa: FBT001, FBT002 - as above
        **_: Any,  # noqa: ANN401 - as above
    ) -> Any:  # noqa: ANN401 - as above
        """Return all files below a folder; empty where there is none.

        Unlike fsspec's own it does not take a folder that cannot be listed for an empty one.
        """
        found: dict[str, dict[str, Any]] = {}
        level = [self._strip_protocol(path)] if self.exists(path) else []
        depth = 0
        while level and (maxdepth is None or depth < maxdepth):
            entries = [entry for folder in level for entry in self.ls(folder)]
            level = [entry["name"] for entry in entries if entry["type"] == "directory"]
            depth += 1
            found.update((e["name"], e) for e in entries if withdirs or e["type"] == "file")
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def exists(self, path: str, **_: Any) -> bool:  # noqa: ANN401 - as above
        """Whether a file or folder is there; an error is no answer, and is raised."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        """Whether it is a folder; as for `exists`."""
        try:
            return bool(self.info(path)["type"] == "directory")
        except FileNotFoundError:
            return False

    def modified(self, path: str) -> datetime:
        """Return when a file last changed, in UTC."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - as above
        """Make a folder and those above it."""
        if not exist_ok and self.exists(path):
            raise FileExistsError(path)
        shared_bridge().call(b"K", text(self._strip_protocol(path)))

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:  # noqa: ANN401, ARG002, FBT001, FBT002 - as above
        """Make a folder."""
        self.makedirs(path)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - as above
        """Remove a file, or a folder with all that is in it."""
        shared_bridge().call(b"D", text(self._strip_protocol(path)))

    def mv(self, path1: str, path2: str, **_: Any) -> None:  # noqa: ANN401 - as above
        """Rename at once, over a file that has the name already."""
        paths = [text(self._strip_protocol(path)) for path in (path1, path2)]
        shared_bridge().call(b"M", *paths, _FLAG.pack(True))  # noqa: FBT003 - the protocol's flag

    def write_whole(self, path: str, data: bytes, *, written: str) -> None:
        """Write a file by one request, which is carried out also if this process is killed then.

        Args:
            path: its URI.
            data: at most `BLOCK_BYTES`.
            written: a name that it has until it is complete; `path` where no rename is wanted.
        """
        paths = [text(self._strip_protocol(name)) for name in (written, path)]
        shared_bridge().call(b"P", *paths, data)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> HadoopFile:  # noqa: ANN401 - as above
        if mode not in {"rb", "wb"}:
            msg = f"{path}: files of Hadoop are opened to read (rb) or to write (wb), not as {mode}"
            raise ValueError(msg)
        options["block_size"] = _BUFFER_BYTES
        options.pop("autocommit", None)
        return HadoopFile(self, path, mode, shared_bridge(), **options)


class HadoopFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    """An open file, read ahead or written in pieces.

    Args:
        fs: its file system.
        path: its URI.
        mode: ``rb`` or ``wb``.
        bridge: the bridge that the file is opened by; its handle is good for no other.
        options: fsspec's own.
    """

    def __init__(
        self,
        fs: HadoopFileSystem,
        path: str,
        mode: str,
        bridge: Bridge,
        **options: Any,  # noqa: ANN401 - fsspec's signature
    ) -> None:
        """Open the file, which makes it where it is to be written."""
        self._bridge = bridge
        self._handle: int | None = None
        if mode == "rb":
            self._handle, size = bridge.call(b"O", text(path)).take(_HANDLE_AND_SIZE)
            options["size"] = size
        super().__init__(fs, path, mode, **options)

    def _initiate_upload(self) -> None:
        (self._handle,) = self._bridge.call(b"C", text(self.path)).take(_HANDLE)

    def _upload_chunk(self, final: bool = False) -> bool:  # noqa: ARG002, FBT001, FBT002 - fsspec's signature
        assert self._handle is not None  # noqa: S101 - fsspec initiates first
        head = _HANDLE.pack(self._handle)
        data = memoryview(self.buffer.getvalue())
        for start in range(0, len(data), BLOCK_BYTES):
            self._bridge.call(b"W", head, data[start : start + BLOCK_BYTES])
        return True

    def _fetch_range(self, start: int, end: int) -> bytes:
        blocks = []
        for at in range(start, end, BLOCK_BYTES):
            request = _READ.pack(self._handle, at, min(BLOCK_BYTES, end - at))
            blocks.append(self._bridge.call(b"R", request).rest())
        return b"".join(blocks)

    def close(self) -> None:
        """Close the file; what was written is there afterwards.

        Raises:
            OSError: it could not be written to its end.
        """
        if self.closed:
            return
        try:
            super().close()
        finally:
            handle, self._handle = self._handle, None
            # what was only read is as good as closed when the JVM is gone
            gone = contextlib.suppress(OSError) if self.mode == "rb" else contextlib.nullcontext()
            if handle is not None:
                with gone:
                    self._bridge.call(b"X", _HANDLE.pack(handle))


def _info(path: str, answer: Reader) -> dict[str, Any]:
    is_folder, size, changed_ms = answer.take(_STATUS)
    return {
        "name": path,
        "size": int(size),
        "type": "directory" if is_folder else "file",
        "mtime": changed_ms / 1000,
    }

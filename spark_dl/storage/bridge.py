"""A small JVM beside this process that serves Hadoop's file systems to it.

It is started by whoever needs it first: the driver, a training child, a predictor. It has the
cluster's own settings and tokens, so nothing native is needed, and it ends when its pipe closes.
The protocol is described in `io.sparkdl.storage.FileSystemServer` (jars/connector).
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import itertools
import logging
import os
import struct
import subprocess
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import IO, TYPE_CHECKING, Final

from spark_dl.config.environment import hadoop_environ, token_file
from spark_dl.storage.java import server_command
from spark_dl.storage.tokens import look_for_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BLOCK_BYTES", "Bridge", "Reader", "shared_bridge", "text"]

logger = logging.getLogger(__name__)

#: Most bytes of a file in one message.
BLOCK_BYTES: Final = 1 << 20
#: Hadoop's own retries, of which a failing NameNode needs many, end long before that.
_CALL_S: Final = 300.0
_END_S: Final = 10.0
_LINES_KEPT: Final = 20

_FRAME: Final = struct.Struct(">i")
_REQUEST: Final = struct.Struct(">iic")
_ANSWER: Final = struct.Struct(">ib")
_FAILED: Final = 1

#: Java's exceptions as Python's, by class name; the rest are OSErrors.
_ERRORS: Final[dict[str, type[OSError]]] = {
    "java.io.FileNotFoundException": FileNotFoundError,
    "java.net.ConnectException": ConnectionError,
    "java.net.NoRouteToHostException": ConnectionError,
    "java.net.SocketTimeoutException": TimeoutError,
    "org.apache.hadoop.net.ConnectTimeoutException": TimeoutError,
    "org.apache.hadoop.ipc.StandbyException": ConnectionError,
    "org.apache.hadoop.fs.FileAlreadyExistsException": FileExistsError,
    "org.apache.hadoop.fs.ParentNotDirectoryException": NotADirectoryError,
    "org.apache.hadoop.fs.PathIsNotDirectoryException": NotADirectoryError,
    "org.apache.hadoop.security.AccessControlException": PermissionError,
}


def text(value: str) -> bytes:
    """Return a text as the protocol has it."""
    raw = value.encode()
    return _FRAME.pack(len(raw)) + raw


class Reader:
    """Takes an answer apart.

    Args:
        data: the answer.
    """

    def __init__(self, data: bytes) -> None:
        """Begin at its start."""
        self._data = data
        self._at = 0

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        """Return the next numbers."""
        found = form.unpack_from(self._data, self._at)
        self._at += form.size
        return found

    def text(self) -> str:
        """Return the next text."""
        (length,) = self.take(_FRAME)
        start, self._at = self._at, self._at + length
        return self._data[start : self._at].decode(errors="replace")

    def rest(self) -> bytes:
        """Return what has not been taken yet."""
        return self._data[self._at :]


class Bridge:
    """A running JVM; may be used by several threads at once.

    Args:
        command: what to run; by default the server with Spark's Hadoop.
        call_s: most seconds that one call may take.

    Raises:
        StorageError: what it needs is not here.
    """

    def __init__(self, command: Sequence[str] | None = None, *, call_s: float = _CALL_S) -> None:
        """Start it; whether it works shows at the first call."""
        self._call_s = call_s
        self._owner = os.getpid()
        self._ids = itertools.count()
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[bytes]] = {}
        self._tail: collections.deque[str] = collections.deque(maxlen=_LINES_KEPT)
        self._is_over = False
        self._tokens: tuple[str, int, int] | None = None
        self._process = subprocess.Popen(  # noqa: S603 - our own class, no shell
            command or server_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=hadoop_environ(),
            start_new_session=True,  # a Ctrl-C is for us; the end of its pipe ends it
        )
        self._threads = [
            threading.Thread(target=target, name="hadoop-bridge", daemon=True)
            for target in (self._receive, self._drain)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Whether it runs and belongs to this process, not to the one that this was forked from."""
        return not self._is_over and self._owner == os.getpid()

    def call(self, operation: bytes, *arguments: bytes | memoryview) -> Reader:
        """Have an operation done and return its result.

        Args:
            operation: its letter.
            arguments: as the protocol has them.

        Raises:
            OSError: it failed, as the exception that fits what Java says; a `TimeoutError` when
                there was no answer in time.
        """
        self._renew_tokens()
        return self._call(operation, *arguments)

    def _renew_tokens(self) -> None:
        """Have the JVM take the tokens that came since the last call, if any did."""
        look_for_tokens()
        stamp = _stamp(token_file())
        if stamp is not None and stamp != self._tokens:
            self._call(b"T", text(stamp[0]))
            self._tokens = stamp

    def _call(self, operation: bytes, *arguments: bytes | memoryview) -> Reader:
        future: Future[bytes] = Future()
        body = b"".join(arguments)
        with self._lock:
            number = next(self._ids) & 0x7FFFFFFF
            self._waiting[number] = future
            self._send(_REQUEST.pack(_ANSWER.size + len(body), number, operation) + body)
        if self._is_over:  # it may have ended just before this call began to wait
            self._end()
        try:
            return Reader(future.result(self._call_s))
        except FutureTimeoutError:
            self._waiting.pop(number, None)
            msg = f"Hadoop gave no answer within {self._call_s:g} s{self._output()}"
            raise TimeoutError(msg) from None

    def _send(self, frame: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - we asked for it
        try:
            pipe.write(frame)
            pipe.flush()
        except (OSError, ValueError):  # closed
            self._end()

    def _receive(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - we asked for it
        with pipe, contextlib.suppress(EOFError, OSError):
            while True:
                (length,) = _FRAME.unpack(_exactly(pipe, _FRAME.size))
                frame = _exactly(pipe, length)
                number, status = _ANSWER.unpack_from(frame)
                future = self._waiting.pop(number, None)
                if future is None:
                    continue  # whoever asked has given up
                if status == _FAILED:
                    future.set_exception(_error(Reader(frame[_ANSWER.size :])))
                else:
                    future.set_result(frame[_ANSWER.size :])
        self._end()

    def _drain(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None  # noqa: S101 - we asked for it
        with pipe, contextlib.suppress(OSError):
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip()
                self._tail.append(line)
                logger.debug("hadoop: %s", line)

    def _end(self) -> None:
        """Fail everything that waits: no answer will come."""
        self._is_over = True
        while self._waiting:
            with contextlib.suppress(KeyError):
                _, future = self._waiting.popitem()
                msg = f"the JVM that reads and writes Hadoop's files has ended{self._output()}"
                future.set_exception(ConnectionError(msg))

    def _output(self) -> str:
        return "; it wrote:\n  " + "\n  ".join(self._tail) if self._tail else ""

    def close(self) -> None:
        """End the JVM and wait for its end."""
        self._is_over = True
        if self._owner != os.getpid():
            return
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(_END_S)


def _stamp(path: str | None) -> tuple[str, int, int] | None:
    """Return what tells a file from the one that was in its place before; `None`: there is none."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return path, found.st_ino, found.st_mtime_ns


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _error(answer: Reader) -> Exception:
    name, message = answer.text(), answer.text()
    kind = _ERRORS.get(name, OSError)
    short = name.rpartition(".")[2]
    return kind(f"{short}: {message}" if message else short)


class _Shared:
    """The bridge of this process, if one runs."""

    lock = threading.Lock()
    bridge: Bridge | None = None


def shared_bridge() -> Bridge:
    """Return this process's bridge; started at first use, and anew where it has ended.

    Raises:
        StorageError: what it needs is not here.
    """
    with _Shared.lock:
        if _Shared.bridge is None or not _Shared.bridge.is_usable:
            close_shared_bridge()
            _Shared.bridge = Bridge()
        return _Shared.bridge


@atexit.register
def close_shared_bridge() -> None:
    """End this process's bridge, if one runs; the next use starts another."""
    bridge, _Shared.bridge = _Shared.bridge, None
    if bridge is not None:
        bridge.close()

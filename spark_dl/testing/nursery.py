"""A process that has TensorFlow loaded, and forks: what it forks need not load it again.

A suite that starts ranks again and again spends most of its time in TensorFlow's import. The
nursery imports it once and never uses it, so that its forks are as good as new processes. It ends
with the process that started it.

The caller (a test) asks for a host; the host is forked from the nursery and stands where an agent
stands on a cluster: it forks the children, watches them and sends one result back.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import cloudpickle

from spark_dl.cluster import child
from spark_dl.cluster.process import MALLOC
from spark_dl.cluster.shipping import pickle_by_value
from spark_dl.errors import InternalError, TimeoutExpiredError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Nursery", "fork_child", "nursery"]

_SIZE: Final = struct.Struct(">Q")
_COMMAND: Final = "import sys; from spark_dl.testing.nursery import main; main(sys.argv[1:])"
#: Read when TensorFlow is imported; children may have other values of what is read later.
_ENVIRON: Final = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "OMP_NUM_THREADS": "1",
}


class Nursery:
    """The caller's end.

    Args:
        modules: what is imported before anything is forked.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        """Start it; it imports from now on."""
        self._socket, theirs = socket.socketpair()
        self._lock = threading.Lock()
        search_path = os.pathsep.join(filter(None, sys.path))
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
                [
                    *(sys.executable, "-u", "-c", _COMMAND),
                    *(str(theirs.fileno()), str(os.getpid()), ",".join(modules)),
                ],
                env={**MALLOC, **os.environ, **_ENVIRON, "PYTHONPATH": search_path},
                stdin=subprocess.DEVNULL,
                # what TensorFlow says at its import; what hosts and children say has other ways
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        atexit.register(self.close)

    @property
    def is_alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and the hosts that still run."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def call(self, function: Callable[[Any], Any], value: object, *, timeout_s: float) -> Any:  # noqa: ANN401 - whatever the function returns
        """Run a function in a new host and return what it returns, or raise what it raises.

        Args:
            function: called as ``function(value)`` with this process's environment, module folders
                and current folder.
            value: a picklable value.
            timeout_s: deadline.

        Raises:
            TimeoutExpiredError: it did not return in time.
        """
        place = (dict(os.environ), list(sys.path), os.getcwd())
        request = pickle_by_value((function, value, place))
        read, write = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._socket, [_SIZE.pack(len(request))], [write])
                self._socket.sendall(request)
        finally:
            os.close(write)
        with os.fdopen(read, "rb", buffering=0) as answer:
            is_good, result = pickle.loads(_read_to_end(answer, timeout_s))  # noqa: S301 - our own fork
        if is_good:
            return result
        raise result


def _read_to_end(answer: Any, timeout_s: float) -> bytes:  # noqa: ANN401 - a raw file
    data = bytearray()
    deadline = time.monotonic() + timeout_s
    while select.select([answer], [], [], max(deadline - time.monotonic(), 0))[0]:
        block = answer.read(1 << 16)
        if not block:
            if data:
                return bytes(data)
            msg = "a forked host ended without an answer"
            raise InternalError(msg)
        data += block
    what = "a host, forked for ranks of this machine, to answer"
    raise TimeoutExpiredError.waiting_for(what, timeout_s, "timeout_s")


@functools.cache
def _started(_pid: int, modules: tuple[str, ...]) -> Nursery:
    return Nursery(modules)


def nursery(modules: tuple[str, ...]) -> Nursery:
    """Return this process's nursery; the first call starts it."""
    found = _started(os.getpid(), modules)
    if not found.is_alive:
        found.close()
        _started.cache_clear()
        found = _started(os.getpid(), modules)
    return found


class _Fork:
    """A forked child, with what `ChildProcess` needs of `subprocess.Popen`."""

    def __init__(self, body: Callable[[], None], keep: Sequence[int]) -> None:
        read, write = os.pipe()
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self.pid = os.fork()
        if not self.pid:
            _begin_anew(write, keep)
            with contextlib.suppress(BaseException):
                body()
            os._exit(1)
        os.close(write)
        self.stdout = os.fdopen(read, "rb")

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        code = self._reap(0)
        return 0 if code is None else code

    def _reap(self, options: int) -> int | None:
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, options)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode


def _begin_anew(output: int, keep: Sequence[int]) -> None:
    """Leave what was the parent's: session, files, output."""
    os.setsid()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:  # noqa: PLR2004 - stderr
            with contextlib.suppress(OSError):  # it was the one that listed the others
                os.close(int(name))


def fork_child(command: Sequence[str], environ: Mapping[str, str], keep: Sequence[int]) -> _Fork:
    """Fork a child instead of starting its command; see `ChildProcess`."""
    arguments = list(command[list(command).index("spark_dl.cluster.child") + 1 :])

    def body() -> None:
        os.environ.clear()
        os.environ.update(environ)
        child.main(arguments)

    return _Fork(body, keep)


def _host(request: bytes, answer: int, parent: int) -> None:
    """Run one function and send back what it returns or raises."""
    child.die_with_parent(parent)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    function, value, (environ, path, folder) = cloudpickle.loads(request)
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:] = path
    os.chdir(folder)
    try:
        result = (True, function(value))
    except Exception as error:  # noqa: BLE001 - the caller raises it
        result = (False, error)
    with os.fdopen(answer, "wb") as file:
        file.write(cloudpickle.dumps(result))


def main(argv: list[str]) -> None:
    """Import, then fork a host for every request."""
    child.die_with_parent(int(argv[1]))
    child.preload(argv[2])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the hosts
    own = os.getpid()
    with socket.socket(fileno=int(argv[0])) as requests:
        while True:
            head, received, _, _ = socket.recv_fds(requests, _SIZE.size, 1)
            if len(head) < _SIZE.size:
                return
            (answer,) = received
            request = child.read_exactly(requests.fileno(), *_SIZE.unpack(head))
            if not os.fork():
                try:
                    requests.close()
                    _host(request, answer, own)
                finally:
                    os._exit(0)
            os.close(answer)

"""The agent's handle on its child process."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from spark_dl.cluster.child import DUMP_SIGNAL, RELEASE, STEP
from spark_dl.errors import TimeoutExpiredError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["MALLOC", "ChildEvent", "ChildProcess", "Process"]

#: How glibc's malloc works in a child, read when it starts: large blocks lie on huge pages, where
#: the kernel gives them to those who ask. Steps on tensors of tens of MB spend up to a third of
#: their time on page faults otherwise.
MALLOC: Final = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

_TAIL_LINES: Final = 30
_MAX_LINE_CHARS: Final = 2000


@dataclass(frozen=True, kw_only=True)
class ChildEvent:
    """Something that happened to a child.

    Attributes:
        kind: ``event`` (it reported something), ``log`` (a line on stdout or stderr), ``exit``.
        event: the report, for ``event``.
        line: the line, for ``log``.
        code: exit status, negative for a signal, for ``exit``.
    """

    kind: str
    event: dict[str, Any] = field(default_factory=dict)
    line: str = ""
    code: int = 0


class Process(Protocol):
    """What is used of a `subprocess.Popen`."""

    pid: int
    returncode: int | None

    @property
    def stdout(self) -> IO[bytes] | None:
        """What it writes."""

    def poll(self) -> int | None:
        """Return the exit status if it has ended."""

    def wait(self) -> int:
        """Wait for its end and return the exit status."""


def _start(command: Sequence[str], environ: Mapping[str, str], keep: Sequence[int]) -> Process:
    return subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
        command,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=keep,
        start_new_session=True,  # its own helpers die with it, by process group
    )


class ChildProcess:
    """A running child; what happens to it arrives in a queue.

    Args:
        environ: the child's whole environment.
        preload: modules that it imports before it has a job.
        noise: lines that contain one of these are dropped.
        start: starts a command with an environment and file descriptors that stay open, in a
            session of its own.
        deliver: called from several threads with every `ChildEvent`; ``exit`` is the last one.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        preload: tuple[str, ...],
        deliver: Callable[[ChildEvent], None],
        noise: tuple[str, ...] = (),
        start: Callable[[Sequence[str], Mapping[str, str], Sequence[int]], Process] = _start,
    ) -> None:
        """Start the interpreter. Call it from the agent's main thread, whose end ends the child."""
        job_read, self._job = os.pipe()
        self._events, event_write = os.pipe()
        self._step = os.memfd_create("spark_dl-step")
        self._deliver = deliver
        self._noise = noise
        self._wait_timer: threading.Timer | None = None
        self.tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        command = [
            *(sys.executable, "-u", "-m", "spark_dl.cluster.child"),
            *(str(job_read), str(event_write), str(self._step)),
            *(str(os.getpid()), ",".join(preload)),
        ]
        self._process = start(command, environ, (job_read, event_write, self._step))
        os.close(job_read)
        os.close(event_write)
        readers = [
            threading.Thread(target=target, daemon=True)
            for target in (self._read_events, self._read_output)
        ]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._wait, args=(readers,), daemon=True).start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def step(self) -> int | None:
        """The last step that it told, up to the moment of its death; `None` before the first."""
        told = os.pread(self._step, STEP.size, 0)
        return STEP.unpack(told)[0] if told else None

    def _read_events(self) -> None:
        with os.fdopen(self._events, "rb") as file:
            for line in file:
                # a child that dies in the middle of a line leaves half of it; its exit is reported
                # anyway
                with contextlib.suppress(json.JSONDecodeError):
                    self._take(json.loads(line))
        self._end_wait()

    def _take(self, event: dict[str, Any]) -> None:
        match event.get("kind"):
            case "wait":
                self._end_wait()
                self._wait_timer = threading.Timer(event["timeout_s"], self._give_up, [event])
                self._wait_timer.daemon = True
                self._wait_timer.start()
            case "wait-over":
                self._end_wait()
            case _:
                self._deliver(ChildEvent(kind="event", event=event))

    def _end_wait(self) -> None:
        if self._wait_timer is not None:
            self._wait_timer.cancel()

    def _give_up(self, wait: dict[str, Any]) -> None:
        """End a child that waits for longer than it said it would."""
        error = TimeoutExpiredError.waiting_for(wait["what"], wait["timeout_s"], wait["setting"])
        told = {
            "kind": "error",
            "error": type(error).__name__,
            "message": str(error),
            "traceback": "",
            "peer": False,
            "retryable": error.retryable,
        }
        self._deliver(ChildEvent(kind="event", event=told))
        self.kill()

    def _read_output(self) -> None:
        if self._process.stdout is None:  # pragma: no cover - it was asked for
            return
        with self._process.stdout as stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()[:_MAX_LINE_CHARS]
                if line and not any(noise in line for noise in self._noise):
                    self.tail.append(line)
                    self._deliver(ChildEvent(kind="log", line=line))

    def _wait(self, readers: list[threading.Thread]) -> None:
        with contextlib.suppress(ChildProcessError):  # close() was faster
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        # not reaped yet, so that the group's number is still its own: its helpers end with it
        self.kill()
        code = self._process.wait()
        for reader in readers:
            # what the child still wrote comes first; a grandchild that holds the pipe must not
            # delay the news
            reader.join(timeout=1.0)
        self._deliver(ChildEvent(kind="exit", code=code))

    def start_job(self, place: dict[str, Any], job: bytes) -> None:
        """Send the function to run; the pipe stays open: its end tells the child of ours.

        Args:
            place: JSON-able ``{"context": …, "environ": …}``.
            job: cloudpickle blob of ``(function, value)``.
        """
        header = json.dumps(place).encode()
        # the child may have died already: its exit says more than our broken pipe
        with contextlib.suppress(BrokenPipeError):
            view = memoryview(struct.pack(">QQ", len(header), len(job)) + header + job)
            while view:
                view = view[os.write(self._job, view) :]

    def release(self) -> None:
        """Let a child go that has delivered its result."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._job, RELEASE)

    def dump_stack(self) -> None:
        """Have the child write the stacks of its threads to its log."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, DUMP_SIGNAL)

    def state(self) -> str:
        """Return the child's state as /proc has it: ``R``, ``S``, ``T`` (stopped), ``Z`` (dead)."""
        try:
            with open(f"/proc/{self._process.pid}/stat", encoding="utf-8") as file:
                return file.read().rpartition(")")[2].split()[0]
        except OSError:
            return "Z"

    def kill(self) -> None:
        """End the child and its process group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the child if it still runs, and reap it."""
        if self._process.poll() is None:
            self.kill()
        self._process.wait()
        for fd in (self._job, self._step):
            with contextlib.suppress(OSError):
                os.close(fd)

    @staticmethod
    def describe_exit(code: int) -> str:
        """Return an exit status in words.

        Example:
            >>> ChildProcess.describe_exit(-9)
            'killed by SIGKILL'
        """
        if code >= 0:
            return f"exit code {code}"
        return f"killed by {signal.Signals(-code).name}"

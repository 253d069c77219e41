"""TensorBoard as a process beside the driver."""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import logging
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Final, Self

from spark_dl.errors import ClusterError, ConfigError, SparkDLError, TimeoutExpiredError
from spark_dl.monitoring import tensorboard_child
from spark_dl.monitoring.mirror import EventMirror
from spark_dl.ports import PortClaim
from spark_dl.storage import is_local, normalise

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from spark_dl.config import TensorBoardConfig
    from spark_dl.ports import PortRange

__all__ = ["TensorBoard", "start_tensorboard"]

logger = logging.getLogger(__name__)

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_STOP_TIMEOUT_S: Final = 5.0
_LINES_KEPT: Final = 40


class TensorBoard:
    """A TensorBoard server that shows a log directory.

    It ends when it is closed or when the process that started it ends, however that ends; with
    `keep` it stays. It needs neither TensorFlow nor a particular setuptools.

    Args:
        logdir: TensorBoard's log directory; it need not be there yet. One that is not mounted is
            mirrored to this host.
        host: address to listen on. TensorBoard asks nobody for a password: other addresses than the
            loopback one let everybody who reaches the port read the run's metrics.
        port: port to listen on; 0 takes a free one.
        keep: leave it running after `close` and after the driver; stopped by hand.
        path_prefix: path under which it answers, for a proxy that passes the whole path on;
            ``{port}`` stands for its port.
        start_timeout_s: most seconds to wait until it answers.

    Example:
        >>> with TensorBoard("/runs/train-1/events") as board:  # doctest: +SKIP
        ...     print(board.url)
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        keep: bool = False,
        path_prefix: str | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        """Keep the settings; nothing is started."""
        self.logdir = normalise(logdir)
        self._mirror = contextlib.ExitStack()
        self.host = host
        self.port = port
        self.keep = keep
        self.path_prefix = path_prefix
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._url: str | None = None
        self._drains: list[threading.Thread] = []
        self._tail: collections.deque[str] = collections.deque(maxlen=_LINES_KEPT)

    @property
    def url(self) -> str:
        """Where it answers.

        Raises:
            ConfigError: it was not started.
        """
        if self._url is None:
            msg = "TensorBoard was not started: call start(), or use it in a `with` statement"
            raise ConfigError(msg)
        return self._url

    @property
    def pid(self) -> int | None:
        """Process id, `None` when it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            ConfigError: TensorBoard is not installed here.
            ClusterError: it ended at once, for example because the port is taken; with what it
                wrote.
            TimeoutExpiredError: it did not come up in time; with what it wrote.
        """
        if self._process is not None:
            return self
        if importlib.util.find_spec("tensorboard") is None:
            msg = (
                "TensorBoard is not installed on the driver: pip install 'spark-dl[tensorboard]', "
                "or set tensorboard.enabled to false"
            )
            raise ConfigError(msg)
        if self.host not in _LOOPBACK:
            logger.warning(
                "TensorBoard listens on %s without a password: everybody who reaches that port "
                "sees this run",
                self.host,
            )
        if self.path_prefix and "{port}" in self.path_prefix and not self.port:
            self.port = _free_port(self.host)
        try:
            self._process = self._launch(self._local_logdir())
            self._url = self._wait_for_url(self._process)
        except BaseException:
            self._stop()
            self._mirror.close()
            raise
        logger.info("TensorBoard for %s is at %s", self.logdir, self._url)
        return self

    def close(self) -> None:
        """Stop the server; with `keep` say how to stop it instead."""
        self._mirror.close()
        if self._process is None:
            return
        if self.keep:
            logger.info(
                "TensorBoard stays at %s (pid %d); stop it with: kill %d",
                self._url,
                self._process.pid,
                self._process.pid,
            )
            # it is nobody's to wait for any more; Popen would warn of a process that still runs
            self._process.returncode = 0
            self._process = None
            return
        self._stop()

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.close()

    def _local_logdir(self) -> str:
        if is_local(self.logdir):
            return self.logdir
        folder = tempfile.mkdtemp(prefix="spark-dl-tensorboard-")
        if not self.keep:
            self._mirror.callback(shutil.rmtree, folder, ignore_errors=True)
        self._mirror.enter_context(EventMirror(self.logdir, folder))
        return folder

    def _launch(self, logdir: str) -> subprocess.Popen[bytes]:
        # by its file, without its folder on sys.path (-P): so it is found wherever this package
        # came from, and the module beside it that is called tensorboard hides nothing
        command = [sys.executable, "-P", tensorboard_child.__file__]
        if not self.keep:
            command.append(tensorboard_child.OWNED)
        command += ["--logdir", logdir, "--host", self.host, "--port", str(self.port)]
        command += ["--reload_interval", "1"]
        if self.path_prefix:
            command += ["--path_prefix", self.path_prefix.replace("{port}", str(self.port))]
        return subprocess.Popen(  # noqa: S603 - our own interpreter and script, no shell
            command,
            stdin=subprocess.DEVNULL if self.keep else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # a Ctrl-C in the driver's terminal is for the driver, which closes this process in turn
            start_new_session=True,
        )

    def _wait_for_url(self, process: subprocess.Popen[bytes]) -> str:
        lines: queue.Queue[str | None] = queue.Queue()
        self._drains = [
            threading.Thread(
                target=self._drain, args=(stream, sink), name="tensorboard-output", daemon=True
            )
            for stream, sink in ((process.stdout, lines), (process.stderr, None))
        ]
        for drain in self._drains:
            drain.start()
        try:
            line = lines.get(timeout=self._start_timeout_s)
        except queue.Empty:
            what = f"TensorBoard to answer{self._output()}\n"
            raise TimeoutExpiredError.waiting_for(
                what, self._start_timeout_s, "start_timeout_s"
            ) from None
        if line is None:
            code = process.wait(_STOP_TIMEOUT_S)
            self._join_drains()  # the reason comes with the last lines
            where = f"{self.host}, port {self.port}"
            msg = f"TensorBoard ended at once with exit code {code} (host {where}){self._output()}"
            raise ClusterError(msg)
        url: str = json.loads(line)["url"]
        return url

    def _drain(self, stream: IO[bytes], sink: queue.Queue[str | None] | None) -> None:
        """Read a pipe to its end, so that the process never waits for a reader."""
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                self._tail.append(line)
                logger.debug("tensorboard: %s", line)
                if sink is not None and line.startswith("{"):
                    sink.put(line)
        if sink is not None:
            sink.put(None)

    def _output(self) -> str:
        return "; it wrote:\n  " + "\n  ".join(self._tail) if self._tail else "; it wrote nothing"

    def _stop(self) -> None:
        process, self._process = self._process, None
        self._url = None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()
        self._join_drains()

    def _join_drains(self) -> None:
        for drain in self._drains:
            drain.join(_STOP_TIMEOUT_S)


def _free_port(host: str) -> int:
    """Return a port that is free now: its number is part of the path, so it is chosen before."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as chosen:
        port: int = chosen.getsockname()[1]
    return port


def start_tensorboard(
    config: TensorBoardConfig, logdir: str | os.PathLike[str], *, ports: PortRange | None = None
) -> TensorBoard | None:
    """Start TensorBoard for a run; a training never fails for want of it.

    Args:
        config: whether and where.
        logdir: the run's events.
        ports: where its port must lie if `config` names none.

    Returns:
        The running server, to be closed; `None` when it is switched off or did not start, which is
        logged.
    """
    if not config.enabled:
        return None
    try:
        with contextlib.ExitStack() as until_it_listens:
            port = config.port
            if not port and ports is not None:
                port = until_it_listens.enter_context(PortClaim(ports, "TensorBoard")).port
            board = TensorBoard(
                logdir,
                host=config.host,
                port=port,
                keep=config.keep,
                path_prefix=config.path_prefix,
            )
            return board.start()
    except SparkDLError as error:
        logger.warning(
            "training goes on without TensorBoard: %s; its events are written to %s", error, logdir
        )
        return None

"""TensorBoard as a process of its own: real ones, on ports that the system chooses."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from types import SimpleNamespace

import pytest

from spark_dl.config import JobConfig, TensorBoardConfig
from spark_dl.errors import ClusterError, ConfigError, TimeoutExpiredError
from spark_dl.monitoring import TensorBoard, start_tensorboard, tensorboard_child
from spark_dl.pipeline.training import _choose_backend
from spark_dl.storage import RunPaths
from spark_dl.testing import descendants

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="the extra `tensorboard` is not installed",
)


def get(url):
    # TensorBoard's own address, on loopback
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid):
    """Wait for a process that is not our child; the test's own timeout is the deadline."""
    if not is_running(pid):
        return
    descriptor = os.pidfd_open(pid)
    try:
        import select

        assert select.select([descriptor], [], [], 60)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)


@needs_tensorboard
def test_it_answers_while_it_is_open_and_is_gone_afterwards(tmp_path):
    with TensorBoard(tmp_path) as board:
        assert board.url.startswith("http://127.0.0.1:")
        assert get(f"{board.url}data/runs") == []
        pid = board.pid
        assert is_running(pid)
        assert board.start() is board  # again: nothing more is started
        assert board.pid == pid
    assert board.pid is None
    assert not is_running(pid)
    with pytest.raises(ConfigError, match="was not started"):
        _ = board.url


@needs_tensorboard
def test_it_needs_no_tensorflow(tmp_path):
    with TensorBoard(tmp_path) as board, open(f"/proc/{board.pid}/maps") as maps:
        assert "_pywrap_tensorflow" not in maps.read()


@needs_tensorboard
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_owner_dies(tmp_path, how):
    script = """
        import sys
        from spark_dl.monitoring import TensorBoard
        board = TensorBoard(sys.argv[1]).start()
        print(board.pid, flush=True)
        sys.stdin.read()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        pid = int(owner.stdout.readline())
        assert is_running(pid)
        owner.send_signal(how)
        owner.wait()
        wait_until_gone(pid)


@needs_tensorboard
def test_kept_it_outlives_close_and_says_how_to_stop_it(tmp_path, caplog):
    caplog.set_level(logging.INFO, "spark_dl")
    board = TensorBoard(tmp_path, keep=True).start()
    pid, url = board.pid, board.url
    try:
        board.close()
        assert f"kill {pid}" in caplog.text
        assert get(f"{url}data/runs") == []
        assert board.url == url
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


@needs_tensorboard
def test_a_taken_port_is_an_error_with_the_reason(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"port {port}") as caught:
            TensorBoard(tmp_path, port=port).start()
    assert "already in use" in str(caught.value)


@needs_tensorboard
def test_other_addresses_than_loopback_are_warned_of(tmp_path, caplog):
    with TensorBoard(tmp_path, host="0.0.0.0") as board:  # noqa: S104 - this is what is warned of
        assert "listens on 0.0.0.0 without a password" in caplog.text
        assert is_running(board.pid)


def test_one_that_never_answers_is_given_up(tmp_path, monkeypatch):
    script = tmp_path / "hangs.py"
    script.write_text("import sys\nprint('looking', file=sys.stderr, flush=True)\nsys.stdin.read()")
    monkeypatch.setattr(tensorboard_child, "__file__", str(script))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    board = TensorBoard(tmp_path, start_timeout_s=1)
    with pytest.raises(TimeoutExpiredError, match="start_timeout_s"):
        board.start()
    assert board.pid is None


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"spark-dl\[tensorboard\]"):
        TensorBoard(tmp_path).start()


def test_a_training_goes_on_without_tensorboard(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert start_tensorboard(TensorBoardConfig(), tmp_path) is None
    assert "training goes on without TensorBoard" in caplog.text
    assert f"its events are written to {tmp_path}" in caplog.text


def test_switched_off_nothing_starts(tmp_path, caplog):
    assert start_tensorboard(TensorBoardConfig(enabled=False), tmp_path) is None
    assert caplog.text == ""


@needs_tensorboard
def test_it_comes_up_while_executors_are_asked_and_goes_if_they_do_not_answer(tmp_path):
    def ask(*_):
        message = "no executor answers"
        raise RuntimeError(message)

    job = SimpleNamespace(
        config=JobConfig(),
        paths=RunPaths(runs=str(tmp_path), run_id="run"),
        spark=SimpleNamespace(range=ask),
    )
    before = set(descendants(os.getpid()))
    with contextlib.ExitStack() as stack:
        with pytest.raises(RuntimeError, match="no executor answers"):
            _choose_backend(job, 2, stack)
        started = set(descendants(os.getpid())) - before
        assert started
    for pid in started:
        wait_until_gone(pid)

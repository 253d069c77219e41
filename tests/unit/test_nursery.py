"""Forked hosts: they answer for a function as a call would, and nothing outlives its caller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from spark_dl.cluster.process import ChildProcess
from spark_dl.errors import InternalError, TimeoutExpiredError
from spark_dl.testing import is_alive
from spark_dl.testing.nursery import Nursery, fork_child, nursery

DEADLINE_S = 60


@pytest.fixture(scope="module")
def small():
    return nursery(("colorsys",))


def look(name):
    return {
        "environ": os.environ.get(name),
        "folder": os.getcwd(),
        "loaded": "colorsys" in sys.modules,
        "path": list(sys.path),
        "pid": os.getpid(),
    }


def test_a_host_is_where_its_caller_is(small, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_DL_TEST", "set later")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    seen = small.call(look, "SPARK_DL_TEST", timeout_s=DEADLINE_S)
    assert seen["environ"] == "set later"
    assert os.path.realpath(seen["folder"]) == os.path.realpath(tmp_path)
    assert seen["path"] == sys.path
    assert seen["loaded"]
    assert seen["pid"] != small.call(look, "", timeout_s=DEADLINE_S)["pid"], "a host each"


def test_what_it_raises_is_raised_here(small):
    def fail(value):
        message = f"cannot take {value}"
        raise ValueError(message)

    with pytest.raises(ValueError, match="cannot take 7"):
        small.call(fail, 7, timeout_s=DEADLINE_S)


def test_a_host_that_ends_or_hangs_is_an_error(small):
    with pytest.raises(InternalError, match="without an answer"):
        small.call(os._exit, 3, timeout_s=DEADLINE_S)
    with pytest.raises(TimeoutExpiredError, match=r"0\.3 s"):
        small.call(lambda _: signal.pause(), None, timeout_s=0.3)
    assert small.call(len, "four", timeout_s=DEADLINE_S) == 4


def start_two(_):
    """Fork two children that do nothing, end one of them; return how it was and the other's pid."""
    ends = []
    children = [
        ChildProcess(environ={}, preload=(), deliver=ends.append, start=fork_child)
        for _ in range(2)
    ]
    children[0].kill()
    deadline = time.monotonic() + DEADLINE_S
    while not any(event.kind == "exit" for event in ends):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    codes = [event.code for event in ends if event.kind == "exit"]
    return codes, children[1].pid, children[1].state()


def test_forked_children_end_with_their_host(small):
    codes, pid, state = small.call(start_two, None, timeout_s=2 * DEADLINE_S)
    assert codes == [-signal.SIGKILL]
    assert state in "RS"
    wait_for_end(pid)


def test_it_ends_with_its_caller():
    script = """
from spark_dl.testing.nursery import Nursery
print(Nursery(())._process.pid)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    wait_for_end(int(done.stdout))


def test_one_that_died_is_replaced():
    first = nursery(("this-one-dies",))
    first._process.kill()
    first._process.wait()
    second = nursery(("this-one-dies",))
    assert isinstance(second, Nursery)
    assert second is not first
    assert second.call(len, "four", timeout_s=DEADLINE_S) == 4


def wait_for_end(pid):
    deadline = time.monotonic() + DEADLINE_S
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.01)

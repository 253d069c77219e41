"""The JVM beside a process: it serves many threads, says what is wrong, and ends with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from spark_dl.errors import StorageError, StorageUnreachableError
from spark_dl.storage import Storage, join
from spark_dl.storage.bridge import Bridge, shared_bridge
from spark_dl.storage.java import server_command, server_jar
from spark_dl.storage.tokens import TokenFile
from spark_dl.testing.processes import is_alive

#: A wait for another process's end; it is over in milliseconds unless the machine is at its limit.
PATIENCE_S = 60.0
#: Hadoop's credentials file, version 0: no tokens, no secret keys.
EMPTY_TOKENS = b"HDTS\0\0\0"


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


def test_many_threads_share_one_jvm(hadoop_root):
    storage = Storage(hadoop_root)
    pids = set()

    def use(number: int) -> bool:
        path = join(hadoop_root, "threads", str(number))
        data = bytes([number]) * (number << 16)
        storage.write_atomic(path, data)
        pids.add(shared_bridge().pid)
        return storage.read_bytes(path) == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(24)))
    assert len(pids) == 1
    assert len(storage.list(join(hadoop_root, "threads"))) == 24


def test_a_jvm_that_was_killed_is_followed_by_another(hadoop_root):
    storage = Storage(hadoop_root)
    path = join(hadoop_root, "killed")
    storage.write_atomic(path, "kept")
    old = shared_bridge().pid
    with storage.open(path) as file:
        os.kill(old, signal.SIGKILL)
        wait_for_end(old)
        with pytest.raises(ConnectionError, match=r"the JVM that reads and writes .* has ended"):
            file.read()
    assert storage.read_text(path) == "kept"
    assert shared_bridge().pid != old


def test_it_ends_with_its_owner_however_that_ends(hadoop_root):
    code = (
        "import sys, time\n"
        "from spark_dl.storage import Storage\n"
        "from spark_dl.storage.bridge import shared_bridge\n"
        f"Storage({hadoop_root!r}).exists({hadoop_root!r})\n"
        "print(shared_bridge().pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        jvm = int(owner.stdout.readline())
        assert is_alive(jvm)
        owner.kill()
    wait_for_end(jvm)


def test_a_file_that_a_killed_process_has_begun_to_write_is_written(hadoop_root):
    """Asked for, not yet begun: the JVM stands still until its owner is dead."""
    path = join(hadoop_root, "last words")
    code = (
        "import os, signal, sys, threading\n"
        "from spark_dl.storage import Storage\n"
        "from spark_dl.storage.bridge import shared_bridge\n"
        f"storage = Storage({path!r})\n"
        f"storage.exists({path!r})\n"
        "bridge = shared_bridge()\n"
        "os.kill(bridge.pid, signal.SIGSTOP)\n"
        f"words = threading.Thread(target=storage.write_atomic, args=({path!r}, 'killed'))\n"
        "words.start()\n"
        "while not bridge._waiting: pass\n"
        "with bridge._lock: print(bridge.pid, flush=True)\n"
        "words.join()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        jvm = int(owner.stdout.readline())
        owner.kill()
    os.kill(jvm, signal.SIGCONT)
    wait_for_end(jvm)
    assert Storage(path).read_text(path) == "killed"
    assert Storage(path).list(hadoop_root).count("last words") == 1
    assert not [name for name in Storage(path).list(hadoop_root) if ".tmp-" in name]


def test_tokens_that_come_later_are_taken_whenever_they_change(hadoop_root, monkeypatch):
    storage = Storage(hadoop_root)
    file = TokenFile()
    monkeypatch.setenv("SPARK_DL_TOKEN_FILE", file.path)
    assert storage.exists(hadoop_root)
    file.replace(EMPTY_TOKENS)
    assert storage.exists(hadoop_root)
    file.replace(b"no tokens at all")
    with pytest.raises(StorageError, match=rf"IOException: Exception reading {file.path}"):
        storage.exists(hadoop_root)
    file.replace(EMPTY_TOKENS)
    assert storage.exists(hadoop_root)
    # what has not changed is not read again: not even by a JVM that could not read it
    with open(file.path, "r+b") as tokens:
        before = os.stat(file.path)
        tokens.write(b"damaged")
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert storage.exists(hadoop_root)
    file.close()
    assert storage.exists(hadoop_root)


def test_no_answer_in_time(hadoop_root):
    bridge = Bridge(["sleep", "60"], call_s=0.05)
    try:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            bridge.call(b"V")
    finally:
        os.kill(bridge.pid, signal.SIGKILL)
        bridge.close()


def test_a_jvm_that_cannot_start_says_why():
    bridge = Bridge(["java", "-cp", "/no/where", "no.such.Class"])
    with pytest.raises(ConnectionError, match=r"has ended; it wrote:\n(.*\n)*.*no\.such\.Class"):
        bridge.call(b"V")
    bridge.close()


def test_a_host_that_does_not_answer_is_worth_another_try(hadoop_root):
    # nobody listens on the port of a socket that is bound only
    url = "hdfs://127.0.0.1:1/x"
    with pytest.raises(StorageUnreachableError, match=r"look for hdfs://127\.0\.0\.1:1/x.*answer"):
        Storage(url).exists(url)


def test_an_unknown_mount_is_no_missing_file(hadoop_root):
    url = "viewfs://nobody/x"
    with pytest.raises(StorageError, match=r"cannot look for viewfs://nobody/x: .*[Mm]ount"):
        Storage(url).exists(url)


def test_a_scheme_that_neither_side_knows(hadoop_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # nor has Spark's own Hadoop its jar
    url = "s3a://bucket/x"
    with pytest.raises(StorageError, match=r"S3AFileSystem not found; install spark-dl\[s3\]"):
        Storage(url).exists(url)


def test_the_class_path_of_a_container(monkeypatch):
    monkeypatch.setenv("CONTAINER_ID", "container_1")
    monkeypatch.setenv("CLASSPATH", "/c/__spark_conf__:/c/__spark_libs__/*")
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    command = server_command()
    assert command[command.index("-cp") + 1] == (
        f"{server_jar()}:/c/__spark_conf__:/c/__spark_libs__/*"
    )


def test_the_class_path_elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("CONTAINER_ID", raising=False)
    monkeypatch.setenv("CLASSPATH", "/of/somebody/else")
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    (tmp_path / "jars").mkdir()
    command = server_command()
    assert command[command.index("-cp") + 1] == f"{server_jar()}:/etc/hadoop:{tmp_path}/jars/*"


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(StorageError, match=rf"{tmp_path}/bin/java cannot be run: set JAVA_HOME"):
        server_command()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setattr("spark_dl.storage.java._PACKAGE", str(tmp_path / "spark_dl"))
    monkeypatch.delenv("SPARK_DL_JARS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"in none of .*name it in spark\.jars"):
        server_jar()
    # where Spark has laid it in an executor's folder
    jar = tmp_path / "spark-dl-connector_2.13-0.1.0.jar"
    jar.write_bytes(b"")
    assert server_jar() == str(jar)

"""Copies on a host: checked, shared, limited, and safe when two make one at once."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import threading
import uuid

import fsspec
import pytest

from spark_dl.config import StorageConfig
from spark_dl.errors import ConfigError, StorageError
from spark_dl.storage import Storage, join
from spark_dl.storage.cache import HostCache, check_room, default_folder, local_copy
from spark_dl.storage.checksum import folder_checksum


def checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Remote:
    """Files that are not mounted."""

    def __init__(self) -> None:
        self.root = f"memory://{uuid.uuid4().hex}"
        self.storage = Storage(self.root)

    def put(self, name: str, data: bytes) -> dict:
        """Write a file and return what the cache is to be asked for."""
        path = join(self.root, name)
        self.storage.write_atomic(path, data)
        return {"path": path, "size": len(data), "checksum": checksum(data)}


@pytest.fixture
def remote():
    return Remote()


@pytest.fixture
def cache(tmp_path):
    return HostCache(str(tmp_path / "copies"), limit_bytes=100)


def copies(cache) -> set[str]:
    return {name for name in os.listdir(cache.folder) if not name.endswith(".lock")}


def use(cache, what: dict) -> bytes:
    with cache.open(**what) as file:
        return file.read()


def test_a_file_is_fetched_once(cache, remote):
    what = remote.put("a", b"content")
    assert use(cache, what) == b"content"
    remote.storage.remove(what["path"])
    assert use(cache, what) == b"content"


def test_equal_files_are_one_copy(cache, remote):
    for name in ("a", "b"):
        use(cache, remote.put(name, b"same"))
    assert len(copies(cache)) == 1


def test_a_file_that_is_not_the_one_is_refused_and_not_kept(cache, remote):
    what = remote.put("a", b"content") | {"checksum": checksum(b"other")}
    with pytest.raises(StorageError, match=r"a is damaged: its checksum is .* nothing was kept"):
        cache.open(**what)
    assert copies(cache) == set()


def test_a_file_that_is_missing_leaves_nothing(cache, remote):
    what = remote.put("a", b"content")
    remote.storage.remove(what["path"])
    with pytest.raises(StorageError, match="no such file"):
        cache.open(**what)
    assert copies(cache) == set()


def test_a_damaged_copy_is_made_anew(cache, remote):
    what = remote.put("a", b"content")
    use(cache, what)
    (name,) = copies(cache)
    with open(os.path.join(cache.folder, name), "wb") as copy:
        copy.write(b"c0ntent")
    assert use(cache, what) == b"content"


def test_what_was_used_least_recently_makes_room(cache, remote):
    first, second = (remote.put(name, name.encode() * 40) for name in "ab")
    use(cache, first)
    use(cache, second)
    for age, what in ((10, second), (20, first)):  # clocks of file systems are coarse
        copy = os.path.join(cache.folder, what["checksum"].removeprefix("sha256:"))
        os.utime(copy, (1e9 - age, 1e9 - age))
    use(cache, first)  # now the second one is older
    use(cache, remote.put("c", b"c" * 40))
    kept = {
        what["checksum"].removeprefix("sha256:") for what in (first, remote.put("c", b"c" * 40))
    }
    assert copies(cache) == kept


def test_what_is_mapped_stays(cache, remote):
    with cache.open(**remote.put("a", b"a" * 60)) as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with pytest.raises(
        StorageError, match=r"that are in use have 60 bytes.*raise storage\.cache_gb"
    ):
        cache.open(**remote.put("b", b"b" * 60))
    data.close()
    assert use(cache, remote.put("b", b"b" * 60)) == b"b" * 60
    assert len(copies(cache)) == 1


def test_remains_of_a_process_that_was_killed_make_room(cache, remote):
    with open(os.path.join(cache.folder, "aa.12345.partial"), "wb") as partial:
        partial.write(b"x" * 90)
    assert use(cache, remote.put("b", b"b" * 60)) == b"b" * 60
    assert len(copies(cache)) == 1


def test_two_that_want_the_same_file_fetch_it_once(cache, remote, monkeypatch):
    what = remote.put("a", b"content")
    opened = []
    has_begun, may_go_on = threading.Event(), threading.Event()
    real = Storage.open

    def slow(self, path, mode="rb"):
        opened.append(path)
        has_begun.set()
        assert may_go_on.wait(60)
        return real(self, path, mode)

    monkeypatch.setattr(Storage, "open", slow)
    found = []
    users = [threading.Thread(target=lambda: found.append(use(cache, what))) for _ in range(2)]
    for user in users:
        user.start()
    assert has_begun.wait(60)
    may_go_on.set()
    for user in users:
        user.join(60)
    assert found == [b"content"] * 2
    assert len(opened) == 1


def test_a_lock_that_is_never_given_back_is_named(tmp_path, remote):
    cache = HostCache(str(tmp_path), wait_s=0.01)
    what = remote.put("a", b"content")
    name = what["checksum"].removeprefix("sha256:")[:2] + ".lock"
    with open(tmp_path / name, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=rf"another process has held .*{name}"):
            cache.open(**what)


def test_a_model_is_fetched_once_and_whole(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_DL_CACHE_DIR", str(tmp_path / "copies"))
    for name in ("saved_model.pb", "variables/data"):
        remote.put(name, name.encode())
    total = folder_checksum(remote.root)
    with local_copy(remote.root, total) as folder:
        assert Storage(folder).files(folder) == ["saved_model.pb", "variables/data"]
    remote.storage.remove(remote.root)
    with local_copy(remote.root, total) as again:
        assert again == folder


def test_a_model_that_has_changed_is_refused(remote, tmp_path):
    remote.put("saved_model.pb", b"old")
    total = folder_checksum(remote.root)
    remote.put("saved_model.pb", b"new")
    cache = HostCache(str(tmp_path))
    with pytest.raises(StorageError, match="has changed"), cache.folder_of(remote.root, total):
        pass
    assert copies(cache) == set()


def test_mounted_folders_are_not_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_DL_CACHE_DIR", str(tmp_path / "copies"))
    with local_copy(str(tmp_path), "sha256:whatever") as folder:
        assert folder == str(tmp_path)
    assert not (tmp_path / "copies").exists()


def test_where_copies_are_kept(tmp_path, monkeypatch):
    for name in ("SPARK_DL_CACHE_DIR", "LOCAL_DIRS", "SPARK_EXECUTOR_DIRS", "SPARK_LOCAL_DIRS"):
        monkeypatch.delenv(name, raising=False)
    assert default_folder().endswith(f"spark-dl-cache-{os.getuid()}")
    monkeypatch.setenv("LOCAL_DIRS", f"/no/where,{tmp_path}")
    assert default_folder() == str(tmp_path / "spark-dl-cache")
    monkeypatch.setenv("SPARK_DL_CACHE_DIR", "/mine")
    assert default_folder() == "/mine"


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageError, match=r"cannot make the folder of local copies .*storage\.cache"
    ):
        HostCache(str(tmp_path / "file"))


@pytest.fixture(autouse=True)
def _empty_memory():
    yield
    fsspec.filesystem("memory").store.clear()


def test_copies_that_a_host_may_not_keep_are_refused_before_there_are_any(tmp_path):
    config = StorageConfig(cache_gb=1.5)
    check_room(config, "hdfs:///d", 1_500_000_000)
    check_room(config, str(tmp_path), 1_500_000_001)  # mounted: nothing is copied
    check_room(StorageConfig(), "hdfs:///d", 10**15)
    with pytest.raises(ConfigError, match=r"hdfs:///d .* have 1\.5 GB.*storage\.cache_gb is 1\.5"):
        check_room(config, "hdfs:///d", 1_500_000_001)

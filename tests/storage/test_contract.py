"""What every kind of storage must do alike."""

from __future__ import annotations

import datetime as dt
import os

import pytest

from spark_dl.errors import StorageError
from spark_dl.storage import JobState, JobStatus, Storage, join
from spark_dl.storage.checksum import folder_checksum
from spark_dl.storage.upload import GrowingUpload, publish_folder


@pytest.fixture
def storage(root):
    return Storage(root)


def test_a_file_is_written_replaced_read_and_removed(storage, root):
    path = join(root, "deep", "status.json")
    assert not storage.exists(path)
    storage.write_atomic(path, "one")
    storage.write_atomic(path, b"two \xc3\xa4")
    assert storage.exists(path)
    assert storage.read_text(path) == "two ä"
    assert storage.size(path) == 6
    assert storage.list(join(root, "deep")) == ["status.json"]
    storage.remove(path)
    storage.remove(path)
    assert not storage.exists(path)
    with pytest.raises(StorageError, match=r"no such file: .*status\.json"):
        storage.read_bytes(path)


def test_folders_are_listed_and_removed_with_all_that_is_in_them(storage, root):
    for name in ("b/part-1", "b/deeper/part=2", "a"):
        storage.write_atomic(join(root, name), name)
    assert storage.list(root) == ["a", "b"]
    assert storage.files(root) == ["a", "b/deeper/part=2", "b/part-1"]
    assert storage.list(join(root, "a")) == []
    storage.remove(root)
    assert storage.list(root) == []
    assert storage.files(root) == []
    assert not storage.exists(root)


def test_large_files_arrive_as_they_are(storage, root, tmp_path):
    data = os.urandom((9 << 20) + 17)
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(data)
    path = join(root, "large")
    storage.upload(str(source), path)
    storage.download(path, str(copy))
    assert copy.read_bytes() == data
    with storage.open(path) as file:
        file.seek(5 << 20)
        assert file.read(100) == data[5 << 20 :][:100]
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]


def test_an_empty_file_is_a_file(storage, root):
    storage.write_atomic(join(root, "empty"), b"")
    assert storage.read_bytes(join(root, "empty")) == b""
    assert storage.files(root) == ["empty"]


def test_a_finished_folder_gets_its_name_once(storage, root):
    for name in ("one", "two"):
        storage.write_atomic(join(root, name, "deep", "x"), name)
    storage.commit(join(root, "one"), join(root, "final"))
    assert storage.files(join(root, "final")) == ["deep/x"]
    assert storage.read_text(join(root, "final", "deep", "x")) == "one"
    with pytest.raises(StorageError, match="is there already; nothing was overwritten"):
        storage.commit(join(root, "two"), join(root, "final"))
    assert storage.read_text(join(root, "final", "deep", "x")) == "one"


def test_the_last_change_is_known(storage, root):
    assert storage.last_change(join(root, "none")) is None
    storage.write_atomic(join(root, "x"), "x")
    changed = storage.last_change(root)
    assert abs(dt.datetime.now(dt.UTC) - changed) < dt.timedelta(minutes=10)


def test_a_job_keeps_its_status_there(root):
    status = JobStatus(job="train", id="a", status=JobState.RUNNING)
    path = join(root, "a", "status.json")
    status.write(path)
    status.succeeded({"loss": 0.5}).write(path)
    assert JobStatus.read(path).metrics == {"loss": 0.5}


def test_a_checksum_is_the_same_wherever_a_folder_lies(storage, root, tmp_path):
    for name in ("saved_model.pb", "variables/data"):
        storage.write_atomic(join(root, name), name)
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_text(name)
    assert folder_checksum(root) == folder_checksum(str(tmp_path / "local"))


def test_a_folder_counts_only_with_its_last_file(storage, root, tmp_path):
    source = tmp_path / "model"
    (source / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/data", "model.json"):
        (source / name).write_text(name)
    target = join(root, "model", "1")
    storage.write_atomic(join(target, "left"), "by a try that was cut off")
    publish_folder(str(source), target, last="model.json")
    assert storage.files(target) == ["model.json", "saved_model.pb", "variables/data"]
    with pytest.raises(StorageError, match="is there already; nothing was overwritten"):
        publish_folder(str(source), target, last="model.json")


def test_logs_that_grow_are_brought_along(storage, root, tmp_path):
    events = tmp_path / "run" / "events" / "train"
    events.mkdir(parents=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("1\n")
    with GrowingUpload(str(tmp_path / "run"), root, every_s=3600) as upload:
        (events / "tfevents").write_text("a")
        upload.update()
        assert storage.files(root) == ["events/train/tfevents", "metrics.jsonl"]
        (events / "tfevents").write_text("ab")
    assert storage.read_text(join(root, "events", "train", "tfevents")) == "ab"
    assert storage.read_text(join(root, "metrics.jsonl")) == "1\n"

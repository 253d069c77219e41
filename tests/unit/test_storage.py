"""Paths, files and run directories."""

from __future__ import annotations

import datetime as dt
import errno
import json
import math
import os
import sys
import uuid

import pytest

from spark_dl.errors import (
    ConfigError,
    DataError,
    RankFailure,
    StorageError,
    StorageUnreachableError,
    TrainingFailedError,
    WorkerLostError,
)
from spark_dl.storage import (
    JobState,
    JobStatus,
    RunPaths,
    Storage,
    is_local,
    join,
    local_path,
    new_run_id,
    normalise,
    spark_uri,
)


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/data/x/", "/data/x"),
        ("/data/../x", "/x"),
        ("file:/data/x", "/data/x"),
        ("file:///data/x/", "/data/x"),
        ("dbfs:/runs", "/dbfs/runs"),
        ("hdfs://name:8020/x/", "hdfs://name:8020/x"),
        ("~/x", os.path.expanduser("~/x")),
        ("x", os.path.join(os.getcwd(), "x")),
    ],
)
def test_normal_paths(path, normal):
    assert normalise(path) == normal
    assert normalise(normal) == normal


def test_local_and_other_paths():
    assert is_local("/data")
    assert not is_local("s3://b/x")
    assert local_path("file:/x") == "/x"
    with pytest.raises(StorageError, match="hdfs://n/x must lie on a file system that driver"):
        local_path("hdfs://n/x")
    assert (spark_uri("/data"), spark_uri("s3://b/x")) == ("file:///data", "s3://b/x")


def test_a_scheme_without_client():
    with pytest.raises(StorageError, match="no working client for nope:// here"):
        Storage("nope://host/x")


def test_a_scheme_whose_extra_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StorageError, match=r"no working client for s3:// .*install spark-dl\[s3\]"):
        Storage("s3://bucket/x")


def test_files(storage, tmp_path):
    path = join(str(tmp_path), "a", "b.txt")
    with storage.open(path, "wb") as file:
        file.write("ä".encode())
    assert storage.read_text(path) == "ä"
    assert storage.size(path) == 2
    assert storage.list(str(tmp_path)) == ["a"]
    storage.remove(join(str(tmp_path), "a"))
    storage.remove(join(str(tmp_path), "a"))
    assert not storage.exists(path)
    assert storage.list(join(str(tmp_path), "a")) == []
    with pytest.raises(StorageError, match=r"no such file: .*b\.txt"):
        storage.read_bytes(path)


def test_an_atomic_write_replaces_and_leaves_nothing_else(storage, tmp_path):
    path = str(tmp_path / "deep" / "status.json")
    storage.write_atomic(path, "one")
    storage.write_atomic(path, b"two")
    assert storage.read_text(path) == "two"
    assert os.listdir(tmp_path / "deep") == ["status.json"]


def test_an_atomic_write_that_fails_keeps_the_old_file(storage, tmp_path, monkeypatch):
    path = str(tmp_path / "status.json")
    storage.write_atomic(path, "one")

    def fail(*_, **__):
        raise OSError(errno.EIO, "disk is gone")

    monkeypatch.setattr(storage._fs, "mv", fail)
    with pytest.raises(StorageError, match=r"cannot write .*status\.json: .*disk is gone"):
        storage.write_atomic(path, "two")
    assert storage.read_text(path) == "one"
    assert os.listdir(tmp_path) == ["status.json"]


def test_commit_gives_a_folder_its_name_once(storage, tmp_path):
    for name in ("one", "two"):
        storage.write_atomic(str(tmp_path / name / "x"), name)
    final = str(tmp_path / "models" / "1")
    storage.make_folder(str(tmp_path / "models"))
    storage.commit(str(tmp_path / "one"), final)
    assert storage.read_text(join(final, "x")) == "one"
    with pytest.raises(StorageError, match="is there already; nothing was overwritten"):
        storage.commit(str(tmp_path / "two"), final)
    assert storage.read_text(join(final, "x")) == "one"


def test_a_folder_that_cannot_be_made(storage, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the folder"):
        storage.make_folder(str(tmp_path / "file" / "x"))


def test_run_paths():
    paths = RunPaths(runs="/runs/", run_id="a-1")
    assert paths.root == "/runs/a-1"
    assert paths.model(3) == "/runs/a-1/model/3"
    below = [
        paths.job,
        paths.manifest,
        paths.status,
        paths.metrics,
        paths.events,
        paths.checkpoints,
    ]
    assert len({*below, paths.models}) == 7
    assert all(path.startswith("/runs/a-1/") for path in below)


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", ".x", "a b", "x" * 101])
def test_run_ids_are_folder_names(run_id):
    with pytest.raises(ConfigError, match="expected letters, digits"):
        RunPaths(runs="/runs", run_id=run_id)


def test_new_run_ids_fit():
    assert RunPaths(runs="/runs", run_id=new_run_id()).run_id != new_run_id()


def test_status_of_a_job_that_ends_well(tmp_path):
    path = str(tmp_path / "runs" / "status.json")
    status = JobStatus(job="train", id="a", status=JobState.RUNNING).succeeded({"loss": 0.5})
    status.write(path)
    assert JobStatus.read(path) == status
    assert (status.status, status.error, status.metrics) == (
        JobState.SUCCEEDED,
        None,
        {"loss": 0.5},
    )
    assert status.started <= status.ended


@pytest.mark.parametrize(
    ("error", "rank", "retryable"),
    [
        (DataError("bad"), None, False),
        (WorkerLostError("bad"), None, True),
        (ValueError("bad"), None, False),
        (
            TrainingFailedError.from_failures(
                [RankFailure(rank=n, host="h", error="E", message="bad") for n in (2, 1)]
            ),
            1,
            False,
        ),
    ],
)
def test_status_of_a_job_that_fails(tmp_path, error, rank, retryable):
    path = str(tmp_path / "status.json")
    JobStatus(job="train", id="a", status=JobState.RUNNING).failed(error).write(path)
    with open(path, encoding="utf-8") as file:
        written = json.load(file)
    assert written["status"] == "failed"
    assert written["error"]["class"] == type(error).__name__
    assert "bad" in written["error"]["message"]
    assert (written["error"]["rank"], written["error"]["retryable"]) == (rank, retryable)
    assert JobStatus.read(path).error.error_class == type(error).__name__


def test_status_of_a_run_that_diverged(tmp_path):
    path = str(tmp_path / "status.json")
    metrics = {"loss": math.nan, "val_loss": math.inf, "accuracy": 0.1}
    JobStatus(job="train", id="a", status=JobState.RUNNING).succeeded(metrics).write(path)
    status = JobStatus.read(path)
    assert status.metrics == {"loss": None, "val_loss": None, "accuracy": 0.1}
    assert status.succeeded(status.metrics).metrics == status.metrics


def test_the_last_change_of_a_folder_is_that_of_its_newest_file(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "part").write_text("x")
    for path, seconds in (("a/b/part", 2000), ("a/b", 1000), ("a", 500)):
        os.utime(tmp_path / path, (seconds, seconds))
    storage = Storage(tmp_path)
    assert storage.last_change(str(tmp_path / "a")) == dt.datetime.fromtimestamp(2000, dt.UTC)
    assert storage.last_change(str(tmp_path / "none")) is None


def test_status_of_a_cancelled_job():
    status = JobStatus(job="train", id="a", status=JobState.RUNNING)
    assert status.failed(KeyboardInterrupt(), cancelled=True).status is JobState.CANCELLED


class ConnectionError(Exception):  # noqa: A001 (botocore's name: it is no OSError)
    """What a client library raises that has errors of its own."""


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (RuntimeError("Unable to locate credentials"), StorageError),
        (ConnectionError("Could not connect to the endpoint"), StorageUnreachableError),
    ],
)
def test_errors_of_a_client_librarys_own_are_told_as_ours(monkeypatch, raised, told):
    storage = Storage(f"memory://{uuid.uuid4().hex}")

    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(storage._fs, "exists", fail)
    with pytest.raises(told, match=f"cannot look for memory://a: {type(raised).__name__}: ") as got:
        storage.exists("memory://a")
    assert isinstance(got.value, StorageUnreachableError) == (told is StorageUnreachableError)

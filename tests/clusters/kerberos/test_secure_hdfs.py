"""HDFS behind Kerberos: what a ticket opens, what a token, and what is closed without either."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyspark
import pytest
from clusters.kerberos.conftest import RENEW_MS

from spark_dl.errors import StorageError
from spark_dl.storage import Storage, join
from spark_dl.storage.bridge import close_shared_bridge
from spark_dl.storage.tokens import TokenFile

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]

FETCHER = "org.apache.hadoop.hdfs.tools.DelegationTokenFetcher"
#: A token's life several times over: the machine may be busy.
PATIENCE_S = 5 * RENEW_MS / 1000


def test_a_ticket_opens_hdfs_and_nothing_else_does(secure_hadoop, kdc, alice, tmp_path):
    text = tmp_path / "text"
    text.write_text("kept")
    kdc.log_in("alice", alice)
    secure_hadoop.fs("-ls", "/", environ=kdc.environ)
    kdc.log_out()
    with pytest.raises(AssertionError, match="AccessControlException"):
        secure_hadoop.fs("-ls", "/", environ=kdc.environ)


@pytest.fixture
def without_ticket(secure_hadoop, kdc, monkeypatch):
    """A process that has nothing but tokens, as a worker in a container."""
    monkeypatch.setenv("HADOOP_CONF_DIR", str(secure_hadoop.conf))
    monkeypatch.setenv("SPARK_HOME", os.path.dirname(pyspark.__file__))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", " ".join(kdc.java_options))
    for name in ("CONTAINER_ID", "HADOOP_TOKEN_FILE_LOCATION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in kdc.environ.items():
        monkeypatch.setenv(name, f"{value}-of-nobody" if name == "KRB5CCNAME" else value)
    tokens = TokenFile()
    monkeypatch.setenv("SPARK_DL_TOKEN_FILE", tokens.path)
    close_shared_bridge()
    yield tokens
    close_shared_bridge()
    tokens.close()


def look_until_it_fails(storage: Storage, path: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        storage.exists(path)
        time.sleep(2.0)


def test_a_process_outlives_its_first_token(secure_hadoop, kdc, alice, tmp_path, without_ticket):
    def fetch_token(name: str) -> bytes:
        path = tmp_path / name
        kdc.log_in("alice", alice)
        secure_hadoop.java(FETCHER, "--renewer", "alice", str(path), environ=kdc.environ)
        kdc.log_out()
        return Path(path).read_bytes()

    storage = Storage(secure_hadoop.uri)
    path = join(secure_hadoop.uri, "user/alice/kept")
    with pytest.raises(StorageError, match="authenticate"):
        storage.exists(path)

    without_ticket.replace(fetch_token("first"))
    storage.write_atomic(path, "by the first token")
    with pytest.raises(StorageError, match=r"expired|can't be found"):
        look_until_it_fails(storage, path)

    without_ticket.replace(fetch_token("second"))
    assert storage.read_text(path) == "by the first token"
    storage.write_atomic(path, "by the second token")
    assert storage.read_text(path) == "by the second token"

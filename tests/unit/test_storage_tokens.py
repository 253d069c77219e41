"""Whose delegation tokens a process's own JVM uses, and when it hears of new ones."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path

import pytest

from spark_dl.config.environment import token_file
from spark_dl.inference.loading import ModelFile
from spark_dl.storage import tokens


class Clock:
    """Time that a test moves on."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """A process that nobody has told of any tokens yet."""
    monkeypatch.setattr(tokens, "_own", [])
    monkeypatch.setattr(tokens, "_followed", {})
    monkeypatch.setenv("SPARK_DL_TOKEN_FILE", "")
    clock = Clock()
    monkeypatch.setattr(tokens, "time", clock)
    yield clock
    for file in tokens._own:
        file.close()


def test_a_driver_takes_the_tokens_that_spark_holds(clock):
    held = [b"first"]
    tokens.follow_tokens(lambda: held[-1])
    assert token_file() is None, "nobody has needed them yet"
    tokens.look_for_tokens()
    assert Path(token_file()).read_bytes() == b"first"
    assert stat.filemode(os.stat(token_file()).st_mode) == "-rw-------"
    held.append(b"second")
    tokens.look_for_tokens()
    assert Path(token_file()).read_bytes() == b"first", "Spark is not asked at every call"
    clock.now += 60
    tokens.look_for_tokens()
    assert Path(token_file()).read_bytes() == b"second"


def test_nothing_is_written_where_there_are_none(clock):
    tokens.look_for_tokens()
    tokens.follow_tokens(lambda: None)
    tokens.look_for_tokens()
    assert token_file() is None


def test_a_spark_that_cannot_say_does_no_harm(clock):
    def read():
        message = "py4j"
        raise ConnectionError(message)

    tokens.follow_tokens(read)
    tokens.look_for_tokens()
    assert token_file() is None


def test_a_forked_process_does_not_ask_on_its_parents_connection(clock, monkeypatch):
    asked = []
    tokens.follow_tokens(lambda: asked.append(os.getpid()))
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    tokens.look_for_tokens()
    assert not asked


def test_a_model_is_the_same_whatever_opens_it():
    plain = ModelFile(path="hdfs://host/model", checksum="1")
    opened = ModelFile(path="hdfs://host/model", checksum="1", tokens=b"secret")
    assert opened == plain
    assert hash(opened) == hash(plain)
    assert "secret" not in repr(opened)
    assert pickle.loads(pickle.dumps(opened)).tokens == b"secret"  # noqa: S301 (ours)

"""Which shards are opened first, and what comes of one that cannot be."""

from __future__ import annotations

import threading

import pytest

from spark_dl.training.read_ahead import ReadAhead

DEADLINE_S = 60


def test_who_is_waited_for_comes_first():
    order, begun, go_on = [], threading.Event(), threading.Event()

    def open_one(number):
        order.append(number)
        begun.set()
        assert go_on.wait(DEADLINE_S)
        return number * 10

    ahead = ReadAhead(5, open_one, threads=1)
    assert begun.wait(DEADLINE_S)
    found = []
    reader = threading.Thread(target=lambda: found.extend(ahead.get([3, 0, 4])))
    waiting = threading.Event()
    take = ahead._to_front
    ahead._to_front = lambda wanted: (take(wanted), waiting.set())
    reader.start()
    assert waiting.wait(DEADLINE_S)
    go_on.set()
    reader.join(DEADLINE_S)
    assert found == [30, 0, 40]
    assert ahead.get(range(5)) == [0, 10, 20, 30, 40]
    assert order == [0, 3, 4, 1, 2]


def test_one_that_cannot_be_opened_is_told_to_all_who_wait():
    def open_one(number):
        if number == 1:
            msg = "no such shard"
            raise OSError(msg)
        return number

    ahead = ReadAhead(4, open_one, threads=1)
    for wanted in ([3], [1], [2]):
        with pytest.raises(OSError, match="no such shard"):
            ahead.get(wanted)
    assert isinstance(ahead.failure, OSError)
    assert ahead.get([0]) == [0]


def test_no_shards_are_no_threads():
    assert ReadAhead(0, lambda number: number, threads=4).get([]) == []

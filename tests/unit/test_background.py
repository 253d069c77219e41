"""A thread with an end."""

from __future__ import annotations

import threading

from spark_dl.background import Background

DEADLINE_S = 60


def test_it_calls_until_it_is_closed():
    called = threading.Semaphore(0)
    background = Background(called.release, every_s=0.001, name="often")
    background.start()
    for _ in range(3):
        assert called.acquire(timeout=DEADLINE_S)
    background.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "often"]


def test_a_long_interval_delays_neither_the_first_call_nor_the_end():
    called = threading.Event()
    background = Background(called.set, every_s=10_000, name="seldom", at_once=True)
    background.start()
    assert called.wait(DEADLINE_S)
    background.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "seldom"]


def test_the_first_call_waits_if_it_is_not_asked_for_at_once():
    calls = []
    background = Background(lambda: calls.append(1), every_s=10_000, name="later")
    background.start()
    background.close()
    assert calls == []

"""The queue for task slots, functions by name, and what importing `spark_dl.ml` loads."""

from __future__ import annotations

import threading

import pytest

from spark_dl.errors import ConfigError, TimeoutExpiredError
from spark_dl.ml import functions
from spark_dl.ml.functions import function_name, to_function
from spark_dl.ml.queue import TrainingQueue, exclusive

LONG_S = 60


def nested():
    def inner():
        """Have a name that nobody can import."""

    return inner


class Trial(threading.Thread):
    """Holds slots from `entered` until `leave` is set."""

    def __init__(self, queue, name, need, capacity=2):
        super().__init__(name=name, daemon=True)
        self.queue, self.need, self.capacity = queue, need, capacity
        self.entered, self.leave = threading.Event(), threading.Event()

    def run(self):
        with self.queue.slots(self.name, need=self.need, capacity=self.capacity, timeout_s=LONG_S):
            self.entered.set()
            assert self.leave.wait(LONG_S)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.leave.set()
        self.join(LONG_S)


def wait_until(condition):
    """Wait for what another thread does soon."""
    deadline = threading.Event()
    for _ in range(LONG_S * 100):
        if condition():
            return
        deadline.wait(0.01)
    pytest.fail("it did not happen")


def test_trainings_that_fit_run_together_and_others_wait():
    queue = TrainingQueue()
    with Trial(queue, "a", 1) as a, Trial(queue, "b", 1) as b:
        assert a.entered.wait(LONG_S)
        assert b.entered.wait(LONG_S)
        with Trial(queue, "c", 1) as c:
            wait_until(lambda: queue.num_waiting == 1)
            assert not c.entered.is_set()
            a.leave.set()
            assert c.entered.wait(LONG_S)
    assert queue.holders == ()


def test_nobody_overtakes_a_training_of_many_workers():
    queue = TrainingQueue()
    with Trial(queue, "small", 1) as small:
        assert small.entered.wait(LONG_S)
        with Trial(queue, "all", None) as large:
            wait_until(lambda: queue.num_waiting == 1)
            with Trial(queue, "late", 1) as late:
                wait_until(lambda: queue.num_waiting == 2)
                assert queue.holders == ("small",)
                small.leave.set()
                assert large.entered.wait(LONG_S)
                assert not late.entered.is_set()
                large.leave.set()
                assert late.entered.wait(LONG_S)


@pytest.mark.parametrize("need", [None, 2, 5])
def test_a_training_that_takes_all_slots_runs_alone(need):
    queue = TrainingQueue()
    with Trial(queue, "first", need) as first:
        assert first.entered.wait(LONG_S)
        message = "1 of 2 task slots for second, held by first; raise `slotsTimeout`"
        with (
            pytest.raises(TimeoutExpiredError, match=message),
            queue.slots("second", need=1, capacity=2, timeout_s=0.01),
        ):
            pass
    assert queue.num_waiting == 0


def test_without_a_known_capacity_one_training_runs_at_a_time():
    queue = TrainingQueue()
    with Trial(queue, "first", 1, capacity=None) as first:
        assert first.entered.wait(LONG_S)
        with (
            pytest.raises(TimeoutExpiredError, match="held by first"),
            queue.slots("second", need=1, capacity=None, timeout_s=0.01),
        ):
            pass


def test_a_failed_training_gives_its_slots_back():
    queue = TrainingQueue()
    with pytest.raises(ZeroDivisionError), queue.slots("a", need=2, capacity=2, timeout_s=1):
        _ = 1 / 0
    with queue.slots("b", need=2, capacity=2, timeout_s=1) as left:
        assert 0 < left <= 1


def test_one_thread_at_a_time_works_on_a_path():
    with exclusive("/data/x", timeout_s=1):
        with exclusive("/data/y", timeout_s=1):
            pass
        seen = []

        def other():
            try:
                with exclusive("/data/x", timeout_s=0.01):
                    seen.append("entered")
            except TimeoutExpiredError as error:
                seen.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(LONG_S)
        assert "another thread that writes /data/x" in seen[0]


def test_functions_have_names_if_they_can_be_imported():
    assert function_name(to_function, param="modelFn") == "spark_dl.ml.functions:to_function"
    assert function_name("a.b:c", param="modelFn") == "a.b:c"


@pytest.mark.parametrize("function", [nested(), lambda: None, functions.re.compile("x").match])
def test_functions_without_a_name_are_refused(function):
    with pytest.raises(ConfigError, match=r"modelFn=.* cannot be saved: it cannot be imported"):
        function_name(function, param="modelFn")


def test_a_function_that_was_replaced_is_refused(monkeypatch):
    monkeypatch.setattr(functions, "to_function", None)
    with pytest.raises(ConfigError, match="cannot be saved"):
        function_name(to_function, param="callbacks")


@pytest.mark.parametrize("value", ["function", "a:b:c", "a:b.c", 3, None])
def test_what_is_no_function(value):
    with pytest.raises(TypeError, match=r"expected a function or 'package\.module:function'"):
        to_function(value)

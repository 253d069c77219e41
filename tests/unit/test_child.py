"""The child of an agent: what is known of it when it is dead."""

from __future__ import annotations

import os
import queue
import signal

import cloudpickle
import pytest

from spark_dl.cluster.process import ChildProcess
from spark_dl.testing.nursery import fork_child, nursery

DEADLINE_S = 60


def die_after(step, context):
    for number in range(1, step + 1):
        context.report({"kind": "step", "run_step": number})
    os.kill(os.getpid(), signal.SIGKILL)


def last_words(step):
    """Have a child die after a step; return how it ended, what it told, and its last step."""
    events = queue.SimpleQueue()
    child = ChildProcess(environ={}, preload=(), deliver=events.put, start=fork_child)
    context = {"rank": 0, "world_size": 1}
    child.start_job({"context": context, "environ": {}}, cloudpickle.dumps((die_after, step)))
    told = []
    while True:
        event = events.get(timeout=DEADLINE_S)
        if event.kind == "exit":
            return event.code, told, child.step
        told.append(event.event["kind"])


@pytest.mark.parametrize(("step", "known"), [(0, None), (3, 3), (100_000, 100_000)])
def test_the_step_after_which_it_was_killed_is_known(step, known):
    told = nursery(("colorsys",)).call(last_words, step, timeout_s=DEADLINE_S)
    assert told == (-signal.SIGKILL, ["started"], known)

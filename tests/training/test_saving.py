"""Which checkpoints stay, and when one is due by the clock."""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_dl.config import CheckpointConfig
from spark_dl.storage import RunPaths
from spark_dl.training import saving
from spark_dl.training.checkpoint import CheckpointStore, Position
from spark_dl.training.collective import Collective
from spark_dl.training.saving import Clock, next_look

STEPS_PER_EPOCH = 10


def store_in(folder, **config):
    paths = RunPaths(runs=str(folder), run_id="r")
    return CheckpointStore(paths, CheckpointConfig(**config))


def commit(store, step, values, metric="val_loss"):
    """Save at a step; `values` are the metric's, of the epochs that are complete."""
    position = Position(
        epoch=len(values),
        step=step,
        steps_per_epoch=STEPS_PER_EPOCH,
        world_size=1,
        seed=0,
        global_batch_size=1,
    )
    checksums = {"model.npz": store.write_part(step, "model.npz", {})}
    store.commit(position, "model.npz", (), checksums=checksums, history={metric: values})


def epoch_ends(store, values, metric="val_loss"):
    for epoch in range(1, len(values) + 1):
        commit(store, epoch * STEPS_PER_EPOCH, values[:epoch], metric)


@pytest.mark.parametrize(
    ("metric", "mode", "kept"),
    [
        ("val_loss", "auto", [20, 50, 60]),
        ("val_auc", "auto", [30, 50, 60]),
        ("val_loss", "max", [30, 50, 60]),
        ("val_auc", "min", [20, 50, 60]),
    ],
)
def test_an_old_best_survives(tmp_path, metric, mode, kept):
    store = store_in(tmp_path, best=metric, mode=mode, keep=2)
    epoch_ends(store, [0.5, 0.1, 0.9, 0.3, 0.4, 0.2], metric)
    assert store.steps() == kept
    assert store.read_part(store.record(kept[0]), "model.npz") == {}


def test_without_best_only_the_newest_stay(tmp_path):
    store = store_in(tmp_path, keep=2)
    epoch_ends(store, [0.5, 0.1, 0.9, 0.3])
    assert store.steps() == [30, 40]


def test_a_metric_that_nobody_reports_keeps_nothing(tmp_path):
    store = store_in(tmp_path, best="val_auc", keep=1)
    epoch_ends(store, [0.5, 0.1, 0.9])
    assert store.steps() == [30]


VALUES = st.none() | st.sampled_from([0.1, 0.2, 0.3]) | st.floats(-1e6, 1e6)


@given(
    values=st.lists(st.tuples(VALUES, st.booleans(), st.booleans()), min_size=1, max_size=8),
    keep=st.integers(1, 3),
    mode=st.sampled_from(["min", "max"]),
)
def test_the_best_epoch_of_all_and_the_newest_stay(values, keep, mode):
    """What lies within an epoch is the best of nothing, whether its end was saved or not."""
    with tempfile.TemporaryDirectory() as folder:
        store = store_in(folder, best="val_loss", mode=mode, keep=keep)
        choose = min if mode == "min" else max
        saved, ends, past = [], {}, []

        def save(step):
            saved.append(step)
            commit(store, step, past)
            best = {choose(ends, key=ends.get)} if ends else set()  # the first of equals
            assert store.steps() == sorted({*saved[-keep:]} | best)

        for epoch, (value, is_saved_within, is_saved) in enumerate(values):
            if is_saved_within:
                save(epoch * STEPS_PER_EPOCH + 5)
            past = [*past, value]
            end = (epoch + 1) * STEPS_PER_EPOCH
            if is_saved and value is not None:
                ends[end] = value
            if is_saved:
                save(end)


class TwoRanks:
    """Two ranks in one thread, the chief first; each has a clock of its own."""

    def __init__(self, every_s):
        self.now = [1000.0, 0.0]
        self.told = []
        self.received = 0
        ranks = self

        class Chief(Collective):
            def broadcast(self, arrays):
                ranks.told.append(arrays[0])
                return arrays

        class Other(Collective):
            rank = 1

            def broadcast(self, arrays):
                ranks.received += 1
                assert ranks.received == len(ranks.told), "only one rank talks"
                assert arrays[0].shape == ranks.told[-1].shape
                return [ranks.told[-1]]

        self.clocks = [Clock(every_s, Chief()), Clock(every_s, Other())]

    def _ask(self, rank, method, step):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: self.now[rank]))
            return getattr(self.clocks[rank], method)(step)

    def start(self, step):
        for rank in range(2):
            self._ask(rank, "start", step)

    def is_due(self, step, *durations):
        """Do a step that takes the ranks so long; return what both say."""
        for rank, duration in enumerate(durations):
            self.now[rank] += duration
        chief, other = (self._ask(rank, "is_due", step) for rank in range(2))
        assert chief == other
        assert self.received == len(self.told), "only one rank talks"
        return chief


def test_all_ranks_are_due_by_the_clock_of_the_chief():
    ranks = TwoRanks(every_s=60)
    ranks.start(0)
    due = []
    for step in range(1, 301):
        if ranks.is_due(step, 1, 50 if step % 7 else 0.1):
            due.append(step)
            ranks.start(step)
    assert due == [60, 120, 180, 240, 300]
    assert len(ranks.told) < 50, "they talk seldom"


@given(
    every_s=st.floats(1, 500),
    # 2.0 / 1.0: to be half-way at the pace so far is in time for steps of twice that
    paces=st.lists(st.tuples(st.floats(1, 2), st.floats(0, 100)), min_size=50, max_size=150),
)
def test_it_is_due_once_the_time_is_over_and_at_most_a_step_later(every_s, paces):
    ranks = TwoRanks(every_s)
    ranks.start(0)
    since = ranks.now[0]
    for step, (chief_s, other_s) in enumerate(paces, 1):
        is_due = ranks.is_due(step, chief_s, other_s)
        elapsed = ranks.now[0] - since
        assert is_due == (elapsed >= every_s)
        if is_due:
            ranks.start(step)
            since = ranks.now[0]


def test_without_a_time_nobody_talks():
    ranks = TwoRanks(every_s=None)
    assert not ranks.is_due(1, 1e9, 1e9), "not started either"
    ranks.start(0)
    assert not any(ranks.is_due(step, 1e9, 1e9) for step in range(1, 9))
    assert not ranks.told


@given(left_s=st.floats(-1e6, 1e6), step_s=st.floats(0, 1e6))
def test_the_next_look_lies_half_way(left_s, step_s):
    steps = next_look(left_s=left_s, step_s=step_s)
    assert (steps == 0) == (left_s <= 0)
    assert steps <= 1 or steps * step_s <= left_s / 2
    assert np.int64(steps) == steps

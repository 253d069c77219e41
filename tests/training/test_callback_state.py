"""What callbacks remember, as arrays and back."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from spark_dl.config import CheckpointConfig
from spark_dl.errors import ConfigError
from spark_dl.storage import RunPaths
from spark_dl.training.callback_state import CallbackStates
from spark_dl.training.task import TrainTask
from spark_dl.training.user import Rank, user_callbacks


class Remembers(keras.callbacks.Callback):
    def __init__(self, patience=3):
        super().__init__()
        self.patience = patience
        self.wait = 0
        self.best = None
        self.best_weights = None
        self.seen = {}
        self.scale = np.float64(1)
        self.file = object()


def test_only_what_has_changed_is_saved_and_comes_back():
    before = Remembers()
    states = CallbackStates([before])
    states.begin()
    before.wait, before.best, before.seen = 2, np.float64(0.25), {"epoch": [1, 2]}
    before.best_weights = [np.arange(6).reshape(2, 3), np.ones(2, np.float32)]
    saved = states.snapshot()
    after = Remembers(patience=9)
    CallbackStates([after], saved).begin()
    assert (after.wait, after.best, after.seen, after.patience) == (2, 0.25, {"epoch": [1, 2]}, 9)
    assert after.best_weights[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert after.best_weights[1].dtype == np.float32


def test_what_is_restored_is_saved_again():
    before = Remembers()
    states = CallbackStates([before])
    states.begin()
    before.wait = 2
    after = Remembers()
    again = CallbackStates([after], states.snapshot())
    again.begin()
    last = Remembers()
    CallbackStates([last], again.snapshot()).begin()
    assert last.wait == 2


def test_other_callbacks_begin_anew():
    before = Remembers()
    states = CallbackStates([before])
    states.begin()
    before.wait = 2
    stopping = keras.callbacks.EarlyStopping()
    stopping.on_train_begin()
    CallbackStates([stopping], states.snapshot()).begin()
    assert stopping.wait == 0
    CallbackStates([], states.snapshot()).begin()
    assert CallbackStates([]).snapshot() == {}


def callbacks_of(given):
    paths = RunPaths(runs="runs", run_id="r")
    task = TrainTask(
        model_fn="m:f",
        dataset="d",
        paths=paths,
        callbacks=given,
        checkpoint=CheckpointConfig(),
    )
    return user_callbacks(task, Rank(rank=1, world_size=2, paths=paths, params={}))


def test_callbacks_are_objects_or_made_on_the_rank():
    mine = Remembers()
    assert callbacks_of(None) == []
    assert callbacks_of([mine]) == [mine]
    assert callbacks_of(lambda rank: [mine] if rank.is_chief else None) == []
    assert callbacks_of(lambda rank: (mine,)) == [mine]


@pytest.mark.parametrize("given", [["EarlyStopping"], lambda rank: [3]])
def test_what_is_no_callback_is_refused(given):
    with pytest.raises(ConfigError, match=r"callbacks holds (str|int), expected keras.callbacks"):
        callbacks_of(given)

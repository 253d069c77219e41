"""What the settings of a training say; pure, or on a few rows in this process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_dl.config import (
    LearningRateConfig,
    TensorBoardConfig,
    TrainingConfig,
    ValidationConfig,
    build,
)
from spark_dl.errors import ConfigError
from spark_dl.training.epochs import EpochPlan


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.data())
def test_epochs_of_any_length_meet_the_passes_in_order(pass_steps, steps_per_epoch, epochs, data):
    plan = EpochPlan(pass_steps=pass_steps, steps_per_epoch=steps_per_epoch, epochs=epochs)
    epoch = data.draw(st.integers(0, epochs - 1))
    step = data.draw(st.integers(0, steps_per_epoch - 1))
    passes, within = plan.passes_from(epoch, step)
    total = epochs * steps_per_epoch
    whole = [divmod(number, pass_steps) for number in range(total)]
    left = [(p, s) for p in passes for s in range(within if p == passes.start else 0, pass_steps)]
    mine = whole[epoch * steps_per_epoch + step :]
    assert left[: len(mine)] == mine
    assert len(left) - len(mine) < pass_steps


@pytest.mark.parametrize(
    ("scale", "step", "rate"),
    [
        ("none", 0, 0.02),
        ("none", 5, 0.11),
        ("none", 10, 0.2),
        ("none", 999, 0.2),
        ("linear", 10, 0.8),
        ("sqrt", 10, 0.4),
    ],
)
def test_the_rate_of_a_step(scale, step, rate):
    config = LearningRateConfig(scale=scale, warmup_steps=10)
    assert config.rate(0.2, world_size=4, step=step) == pytest.approx(rate)


def test_when_to_validate():
    when = ValidationConfig(every_epochs=2, every_steps=3)
    assert [when.ends_epoch(epoch) for epoch in range(4)] == [False, True, False, True]
    assert [when.follows_step(step) for step in range(1, 7)] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (TrainingConfig, {"class_weight": {-1: 2.0}}, "classes are numbers from 0"),
        (TrainingConfig, {"class_weight": {1: -2.0}}, "greater than or equal to 0"),
        (TrainingConfig, {"validation": {"every_epochs": None}}, "nothing is validated"),
        (TrainingConfig, {"learning_rate": {"scale": "cubic"}}, "'none', 'linear' or 'sqrt'"),
        (TensorBoardConfig, {"profile_steps": [9, 3]}, "the first step and the last"),
    ],
)
def test_what_cannot_be_meant_is_refused(section, values, message):
    with pytest.raises(ConfigError, match=message):
        build(section, values, where="job.yaml")

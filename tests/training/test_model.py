"""What is refused of a user's model before it trains, and what is not."""

from __future__ import annotations

import keras
import pytest

from spark_dl.errors import ConfigError
from spark_dl.schema import FeatureSpec
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries
from spark_dl.training import TrainTask
from spark_dl.training.collective import Collective
from spark_dl.training.export import takes_bare_input
from spark_dl.training.metrics import check_reducible
from spark_dl.training.model import build_model

SPEC = FeatureSpec(entries=dense_entries(3))


class TwoRanks(Collective):
    world_size = 2


def model_with(**settings):
    keras.config.set_floatx("float32")
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    if settings:
        model.compile(**{"optimizer": "sgd", "loss": "mse"} | settings)
    return model


def build(model, collective=None):
    task = TrainTask(
        model_fn=lambda spec, params: model,
        dataset="/nowhere",
        paths=RunPaths(runs="/nowhere", run_id="r"),
    )
    return build_model(task, SPEC, collective or TwoRanks())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: None, "returned NoneType, expected a compiled keras.Model"),
        (model_with, "not compiled: call model.compile"),
        (lambda: model_with(steps_per_execution=2), "steps_per_execution=2 in compile"),
        (
            lambda: model_with(loss=keras.losses.MeanSquaredError(reduction="sum")),
            "the loss 'mean_squared_error' has reduction='sum': its mean over 2 workers",
        ),
    ],
)
def test_what_cannot_be_trained_together_is_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        build(model())


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module:build", "'no_such_module:build' cannot be imported on the executor"),
        ("keras:no_such_function", "has no function 'no_such_function'"),
    ],
)
def test_a_model_fn_that_cannot_be_found_is_named(reference, message):
    task = TrainTask(
        model_fn=reference, dataset="/nowhere", paths=RunPaths(runs="/nowhere", run_id="r")
    )
    with pytest.raises(ConfigError, match=message):
        build_model(task, SPEC, TwoRanks())


def test_a_sum_is_fine_for_one_worker():
    loss = keras.losses.MeanSquaredError(reduction="sum")
    assert build(model_with(loss=loss), Collective()).loss is loss


def test_the_users_optimizer_object_is_left_as_it_was():
    optimizer = keras.optimizers.Adam(0.3)
    model = build(model_with(optimizer=optimizer))
    assert type(optimizer) is keras.optimizers.Adam
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.optimizer is not optimizer
    assert model.get_compile_config()["optimizer"]["class_name"] == "Adam"


def test_a_metric_that_is_no_sum_is_refused_by_name():
    class Largest(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="largest")
            self.seen = self.add_variable((), "zeros", name="seen", aggregation="mean")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.seen.assign(keras.ops.max(y_pred))

        def result(self):
            return self.seen

    model = model_with(metrics=[Largest()])
    model.evaluate(keras.ops.ones((1, 3)), keras.ops.ones((1, 1)), verbose=0)
    with pytest.raises(ConfigError, match="'largest/seen' is aggregated by 'mean', not by sum"):
        check_reducible(model)


def test_a_single_input_is_passed_as_the_model_declares_it():
    assert takes_bare_input(model_with(), SPEC)
    named = keras.Input((3,), name="x")
    assert not takes_bare_input(keras.Model({"x": named}, keras.layers.Dense(1)(named)), SPEC)
    assert takes_bare_input(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), SPEC)

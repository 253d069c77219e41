"""What is refused of a user's model before it trains, and what is not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from spark_dl.errors import ConfigError
from spark_dl.schema import FeatureSpec
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, write_shards
from spark_dl.training import TrainTask
from spark_dl.training.collective import Collective
from spark_dl.training.export import takes_bare_input
from spark_dl.training.metrics import check_reducible
from spark_dl.training.model import build_model
from spark_dl.training.setup import set_up

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


class Own(keras.metrics.Metric):
    """A user's metric with one variable; `update` gives its next value."""

    def __init__(self, update, **settings):
        super().__init__(name="own")
        self.update = update
        self.seen = self.add_variable((), "zeros", name="seen", **settings)

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign(self.update(self.seen, keras.ops.sum(keras.ops.abs(y_true - y_pred))))

    def result(self):
        return self.seen


class OwnStart(keras.metrics.MeanAbsoluteError):
    """Starts anew from another number than 0."""

    def reset_state(self):
        super().reset_state()
        self.count.assign(5.0)


class OwnMean(keras.metrics.MeanAbsoluteError):
    """Only what it returns is the user's; Keras sums."""

    def result(self):
        return super().result() ** 2


class Loud(keras.layers.Layer):
    """Draws at random also where nothing is trained."""

    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


def largest(seen, error):
    return keras.ops.maximum(seen, error)


def total(seen, error):
    return seen + error


def rows(count=5):
    x = np.random.default_rng(2).normal(size=(count, 3)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1, keepdims=True))).batch(1)


def check(model):
    model.evaluate(rows(1), verbose=0)
    model.reset_metrics()
    check_reducible(model, rows())


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda: Own(total, aggregation="mean"), "'own/seen' is aggregated by 'mean', not by sum"),
        (lambda: Own(largest), "metric 'own': its variable 'own/seen' is no sum over rows"),
        (lambda: Own(lambda seen, error: error), "'own/seen' is no sum"),
        (lambda: Own(lambda seen, error: 0.9 * seen + error), "'own/seen' is no sum"),
        (lambda: OwnStart(name="own"), "'own/count' is no sum"),
    ],
)
def test_a_metric_that_is_no_sum_is_refused_by_name(metric, message):
    with pytest.raises(ConfigError, match=message):
        check(model_with(metrics=["mae", metric()]))


def test_it_is_said_what_was_found_and_expected():
    count = Own(lambda seen, error: keras.ops.maximum(seen, 2.0))
    with pytest.raises(ConfigError, match=r"rows twice it holds 2, expected 4, for it holds 2"):
        check(model_with(metrics=[count]))


@pytest.mark.parametrize("metric", [lambda: Own(total), OwnMean, lambda: "auc"])
def test_a_metric_that_sums_is_fine_and_begins_with_nothing(metric):
    model = model_with(metrics=[metric()])
    check(model)
    assert not any(np.any(variable.numpy()) for variable in model.metrics_variables)


def test_of_what_is_random_nothing_can_be_said():
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(Loud()(inputs)))
    model.compile(optimizer="sgd", loss="mse", metrics=[Own(total)])
    check(model)


def test_a_metric_of_the_models_own_test_step_is_tried_too():
    class Watching(keras.Model):
        def test_step(self, data):
            x, y = data
            self.own.update_state(y, self(x))
            return {"own": self.own.result()}

    inputs = keras.Input((3,), name="x")
    model = Watching(inputs, keras.layers.Dense(1)(inputs))
    model.own = Own(largest)
    model.compile(optimizer="sgd", loss="mse")
    with pytest.raises(ConfigError, match="metric 'own': its variable 'own/seen' is no sum"):
        check(model)


@pytest.mark.parametrize("count", [1, 12])
def test_a_rank_refuses_it_before_it_trains(tmp_path, count):
    x = np.zeros((count, 3), np.float32)
    y = np.arange(count, dtype=np.float32) + (count == 1)  # the first of several rows tells nothing
    write_shards(str(tmp_path), dense_entries(3), {"train": {"x": x, "y": y}})

    def training(update):
        return TrainTask(
            model_fn=lambda spec, params: model_with(metrics=[Own(update)]),
            dataset=str(tmp_path),
            paths=RunPaths(runs=str(tmp_path), run_id="r"),
            global_batch_size=1,
        )

    set_up(training(total), Collective())
    with pytest.raises(ConfigError, match="metric 'own': its variable 'own/seen' is no sum"):
        set_up(training(largest), Collective())


def test_a_single_input_is_passed_as_the_model_declares_it():
    assert takes_bare_input(model_with(), SPEC)
    named = keras.Input((3,), name="x")
    assert not takes_bare_input(keras.Model({"x": named}, keras.layers.Dense(1)(named)), SPEC)
    assert takes_bare_input(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), SPEC)

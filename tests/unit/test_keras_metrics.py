"""A model's own metrics, summed over the rows of several tasks."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pyarrow as pa
import pytest

from spark_dl.errors import MetricError
from spark_dl.inference.inputs import BoundInput
from spark_dl.inference.keras_metrics import MetricsTask, merged_metrics, partial_metrics
from spark_dl.inference.loading import Compute, ModelFile

pytestmark = [
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
]

ROWS, BATCH = 21, 4
X = np.random.default_rng(2).normal(size=(ROWS, 2)).astype(np.float32)
Y = X.sum(axis=1) + 1
NAMES = np.array(["ant", "bee", "cat"])[np.arange(ROWS) % 3]


class Own(keras.metrics.Metric):
    """A user's metric with one variable."""

    aggregation = "sum"

    def __init__(self, name="own", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.seen = self.add_variable((), "zeros", name="seen", aggregation=self.aggregation)

    def update_state(self, y_true, y_pred, sample_weight=None):
        error = keras.ops.sum(keras.ops.abs(y_true - keras.ops.reshape(y_pred, (-1,))))
        self.seen.assign(self.after(error))

    def result(self):
        return self.seen


@keras.saving.register_keras_serializable("spark_dl_tests")
class Total(Own):
    def after(self, error):
        return self.seen + error


@keras.saving.register_keras_serializable("spark_dl_tests")
class Largest(Own):
    def after(self, error):
        return keras.ops.maximum(self.seen, error)


@keras.saving.register_keras_serializable("spark_dl_tests")
class Last(Own):
    def after(self, error):
        return error


@keras.saving.register_keras_serializable("spark_dl_tests")
class Kept(Total):
    def reset_state(self):
        """Forget nothing."""


@keras.saving.register_keras_serializable("spark_dl_tests")
class Averaged(Total):
    aggregation = "mean"


@pytest.fixture
def evaluate(tmp_path):
    """Evaluate a model with these metrics as tasks of these rows do it."""
    number = itertools.count()

    def run(metrics, *, parts=((0, 9), (9, 10), (10, ROWS)), texts=False, weigh=False):
        keras.config.set_floatx("float32")
        keras.utils.set_random_seed(3)
        x = keras.Input((2,), name="x")
        inputs, hidden, given = [x], x, [X]
        if texts:
            name = keras.Input((), dtype="string", name="name")
            numbers = keras.layers.StringLookup(vocabulary=["ant", "bee"], output_mode="one_hot")
            hidden = keras.layers.Concatenate()([x, numbers(name)])
            inputs, given = [x, name], [X, NAMES]
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        model.compile(loss="mse", metrics=metrics, weighted_metrics=["mae"] if weigh else None)
        path = str(tmp_path / f"m{next(number)}.keras")
        model.save(path)
        weights = [np.linspace(0, 2, ROWS, dtype=np.float32)] if weigh else []
        bound = [
            BoundInput(name="x", column="x", dtype="float32", element="float", kind="array",
                       shape=(2,)),
            BoundInput(name="name", column="name", dtype="string", element="string",
                       kind="scalar", shape=()),
        ]  # fmt: skip
        task = MetricsTask(
            file=ModelFile(path=path, checksum="1", kind="keras"),
            inputs=tuple(bound[: len(given)]),
            label="y",
            has_weight=weigh,
            batch_size=BATCH,
        )
        columns = [pa.array(list(X)), *([pa.array(NAMES)] if texts else []), pa.array(Y)]
        columns += map(pa.array, weights)
        table = pa.RecordBatch.from_arrays(columns, [str(i) for i in range(len(columns))])
        found = [
            partial_metrics([table.slice(start, end - start)], task, Compute())
            for start, end in parts
        ]
        return merged_metrics(found, task, Compute())

    return run


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("weigh", [False, True])
def test_the_tasks_sums_give_the_metrics_of_all_rows(evaluate, texts, weigh):
    one = evaluate(["mae", Total(), "r2_score"], parts=[(0, ROWS)], texts=texts, weigh=weigh)
    many = evaluate(["mae", Total(), "r2_score"], texts=texts, weigh=weigh)
    assert many == pytest.approx(one, rel=1e-5)
    assert {"loss", "mae", "own", "r2_score"} <= set(many)
    if not weigh:
        assert many["own"] == pytest.approx(many["mae"] * ROWS, rel=1e-5)


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (Largest, "after the same rows twice it holds"),
        (Last, "after the same rows twice it holds"),
        (Kept, "without any it holds"),
    ],
)
def test_a_metric_that_is_no_sum_is_refused_by_name(evaluate, metric, reason, texts):
    named = r"m0\.keras: metric 'own': its variable 'own/seen' is no sum over rows"
    with pytest.raises(MetricError, match=f"{named}: {reason} .*: compile the model with") as told:
        evaluate(["mae", metric()], texts=texts, weigh=texts)
    assert "keras.metrics.Mean" in str(told.value)


def test_a_metric_that_says_itself_that_it_is_no_sum_is_refused(evaluate):
    with pytest.raises(MetricError, match="'own/seen' is aggregated by 'mean', not by sum: sever"):
        evaluate([Averaged()])


def test_metrics_of_keras_are_not_tried(evaluate, monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError

    monkeypatch.setattr(keras.Model, "evaluate", refuse)
    assert evaluate(["mae", keras.metrics.MeanSquaredError()])["mae"] > 0
    with pytest.raises(AssertionError):
        evaluate([Total()])

"""Errors that a restart would not mend: the run ends at once, with the cause in the first line."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from faults.conftest import first_line
from faults.model import watched
from faults.processes import strike

from spark_dl.errors import CancelledError, ConfigError
from spark_dl.storage import JobState
from spark_dl.testing import is_alive

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(400)]


def leave(rank):
    if rank == 1:
        os._exit(0)


def fail_on_one(rank):
    if rank == 1:
        message = "a bad row"
        raise ValueError(message)


def fail_on_all(rank):
    message = "a bad table"
    raise ValueError(message)


def take_too_much(rank):
    if rank == 0:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
        np.ones(2**30)


@pytest.mark.parametrize(
    ("act", "ranks", "cause"),
    [
        (leave, "1", "exit code 0: the worker process ended without a result"),
        pytest.param(fail_on_one, "1", "ValueError: a bad row", marks=pytest.mark.smoke),
        (fail_on_all, "0, 1", "ValueError: a bad table"),
        (take_too_much, "0", "MemoryError: Unable to allocate"),
    ],
)
def test_an_error_in_a_step_ends_the_run(start, act, ranks, cause):
    caught = start("tensorflowonspark", act=act)
    children = caught.children()
    caught.fails(cause, ranks=ranks)
    assert not any(map(is_alive, children))


def refuse_at_the_end(rank):
    import keras

    class Refuse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            message = f"val_loss is {logs['val_loss'] >= 0}"
            raise ArithmeticError(message)

    return [Refuse()] if rank.is_chief else []


def test_an_error_in_a_callback_of_the_chief(start):
    start(callbacks=refuse_at_the_end).fails("ArithmeticError: val_loss is True", ranks="0")


def not_to_be_saved(spec, params):
    import keras

    class Secretive(keras.layers.Layer):
        def call(self, inputs):
            return inputs

        def get_config(self):
            message = "this layer keeps its config to itself"
            raise NotImplementedError(message)

    model = watched(spec, params)
    inner = keras.Model(model.inputs, Secretive()(model.output))
    inner.compile(optimizer="sgd", loss="mse", metrics=["mae"])
    return inner


def test_an_error_at_export_leaves_no_model(start):
    """That there is none is checked by `start`, after each failed run."""
    cause = "NotImplementedError: this layer keeps its config to itself"
    start(model_fn=not_to_be_saved).fails(cause, ranks="0")


def of_other_columns(spec, params):
    import keras

    inputs = [keras.Input((), name=name) for name in ("a", "z")]
    model = keras.Model(inputs, keras.layers.Add()(inputs))
    model.compile(optimizer="sgd", loss="mse")
    return model


def without_a_file(spec, params):
    with open("/nowhere/weights", "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    ("model_fn", "causes"),
    [
        (
            of_other_columns,
            (
                "ConfigError: the model does not fit its dataset: column 'b' goes into no input; ",
                "input 'z' gets no column (features of a row: a float32 [], b float32 []; inputs: ",
                "keras.Input((), name='a')",
            ),
        ),
        (without_a_file, ("FileNotFoundError: ", "'/nowhere/weights'")),
    ],
    ids=["columns of others", "exception in model_fn"],
)
def test_an_error_before_the_first_step_ends_the_run(start, model_fn, causes):
    start(model_fn=model_fn).fails(*causes)


def risky(spec, params):
    import keras
    import tensorflow as tf

    inputs = {feature.name: keras.Input((), name=feature.name) for feature in spec.features}
    total = keras.layers.Add()(list(inputs.values()))
    # of what is below zero there is no logarithm
    total = keras.layers.Lambda(lambda t: tf.math.log(t - 9.0), name="risky")(total)
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Reshape((1,))(total)))
    model.compile(optimizer="sgd", loss="mse")
    return model


def test_a_loss_that_is_no_number_is_told_with_its_layer(start):
    checked = {"training": {"log_every_steps": 1, "check_numerics": True}}
    start(model_fn=risky, config=checked).fails(
        "DataError: the first NaN or infinity came out of ", "operation Log in layer ", "risky"
    )


def die_at_step_six(rank):
    import keras

    class Die(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) == 6 and rank.rank == 1:
                os.kill(os.getpid(), signal.SIGSEGV)

    return [Die()]


def test_a_crash_at_the_same_step_is_not_tried_for_ever(start):
    error = start(callbacks=die_at_step_six).fails("killed by SIGSEGV", ranks="1", attempt=2)
    assert "not restarted: the same happened twice after step 6" in str(error)


def test_a_cancelled_run_goes_on_under_its_id(start, as_if_nothing_happened, cluster_spark):
    caught = start()
    caught.children()
    cluster_spark.sparkContext.cancelAllJobs()
    with pytest.raises(CancelledError, match="the Spark job was cancelled"):
        caught.result()
    assert caught.status.status is JobState.CANCELLED
    again = start()
    as_if_nothing_happened(again, again.result())


def test_a_run_is_cancelled_by_the_group_of_its_caller(start, cluster_spark):
    context = cluster_spark.sparkContext
    mine, other = (
        start(run_id=group, num_workers=1, first=lambda name=group: context.setJobGroup(name, ""))
        for group in ("mine", "other")
    )
    for run in (mine, other):
        run.children(workers=1)
    context.cancelJobGroup("mine")
    with pytest.raises(CancelledError, match="the Spark job was cancelled"):
        mine.result()
    assert mine.status.status is JobState.CANCELLED
    assert len(other.result().history["loss"]) == 2
    assert other.status.attempt == 1


def test_a_run_in_use_is_refused_and_lives_on(start, as_if_nothing_happened):
    caught = start()
    caught.children()
    with pytest.raises(ConfigError, match=rf"its driver \(pid {os.getpid()} on .*\) lives"):
        start().result()
    as_if_nothing_happened(caught, caught.result(), attempt=1)


def test_of_two_runs_at_once_one_loses_its_worker(start):
    caught = [start(run_id=f"run-{number}", num_workers=1) for number in range(2)]
    strike(caught[0].children(workers=1)[0])
    caught[1].children(workers=1)
    for run in caught:
        run.go()
    for run in caught:
        assert len(run.result().history["loss"]) == 2
    assert [run.status.attempt for run in caught] == [2, 1]


def test_a_shard_that_is_damaged_before_a_restart(start, copied_dataset):
    caught = start(dataset=copied_dataset.path)
    victim = caught.children()[1]
    shards = [shard.path for shard in copied_dataset.manifest.split("train")]
    for name in shards:
        path = os.path.join(copied_dataset.path, name)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) - 20)
            file.write(b"\xff" * 8)
    strike(victim)
    error = caught.fails("ShardError: ", "is damaged: its checksum is", attempt=2)
    assert any(name in first_line(error) for name in shards)

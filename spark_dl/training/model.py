"""From the user's `model_fn` to a model that trains on all ranks alike."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from spark_dl.errors import ConfigError, did_you_mean
from spark_dl.training.checkpoint import seed_states
from spark_dl.training.optimizer import distributed

if TYPE_CHECKING:
    from collections.abc import Callable

    from spark_dl.schema import FeatureSpec
    from spark_dl.training.collective import Collective
    from spark_dl.training.task import TrainTask

__all__ = ["average_state", "build_model", "equalise", "resolve_function"]

#: Loss reductions whose mean over ranks is not their value over all rows.
_UNFIT_REDUCTIONS = ("sum", "mean_with_sample_weight")


def resolve_function(reference: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return a function given as itself or as ``"package.module:function"``.

    Raises:
        ConfigError: it cannot be imported here, on the executor; the message says how to ship it.
    """
    if not isinstance(reference, str):
        return reference
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        msg = f"model_fn {reference!r}: expected 'package.module:function'"
        raise ConfigError(msg)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        msg = (
            f"model_fn {reference!r} cannot be imported on the executor: {error}; "
            "ship it with --py-files, install it there, or give the function itself"
        )
        raise ConfigError(msg) from error
    function = getattr(module, name, None)
    if not callable(function):
        hint = did_you_mean(name, [key for key in vars(module) if not key.startswith("_")])
        msg = (
            f"model_fn {reference!r}: module {module_name} ({module.__file__}) has no function "
            f"{name!r}{hint}"
        )
        raise ConfigError(msg)
    return function  # type: ignore[no-any-return]  # whatever the user's module holds


def build_model(task: TrainTask, spec: FeatureSpec, collective: Collective) -> keras.Model:
    """Return the user's model, compiled by them, with an optimizer that averages gradients.

    All ranks start from rank 0's weights; random layers get a seed of their own on each rank.

    Args:
        task: what to train.
        spec: the columns that it is trained on.
        collective: of this rank.

    Raises:
        ConfigError: `model_fn` does not return a compiled Keras model.
    """
    keras.utils.set_random_seed(task.seed)
    model = resolve_function(task.model_fn)(spec, dict(task.params))
    if not isinstance(model, keras.Model):
        msg = f"model_fn returned {type(model).__name__}, expected a compiled keras.Model"
        raise ConfigError(msg)
    if not getattr(model, "compiled", False):
        msg = (
            "model_fn returned a model that is not compiled: call model.compile(optimizer=…, "
            "loss=…) in it"
        )
        raise ConfigError(msg)
    _check_compiled(model, collective)
    if collective.world_size > 1:
        # XLA cannot compile a step that holds a CPU collective
        model.jit_compile = False
        model.optimizer = distributed(model.optimizer, collective)
    return model


def _check_compiled(model: keras.Model, collective: Collective) -> None:
    """Refuse what would make N workers learn something else than one.

    Raises:
        ConfigError: naming the argument of `compile`.
    """
    if model.steps_per_execution != 1:
        msg = (
            f"steps_per_execution={model.steps_per_execution} in compile(): workers must step "
            "together, one step at a time; leave it out"
        )
        raise ConfigError(msg)
    for loss in keras.tree.flatten(model.loss):
        reduction = getattr(loss, "reduction", None)
        if collective.world_size > 1 and reduction in _UNFIT_REDUCTIONS:
            msg = (
                f"the loss {loss.name!r} has reduction={reduction!r}: its mean over "
                f"{collective.world_size} workers is not its value over all rows; "
                "use 'sum_over_batch_size'"
            )
            raise ConfigError(msg)


def equalise(model: keras.Model, seed: int, collective: Collective) -> None:
    """Give every rank rank 0's weights, and its own seeds; the model must be built.

    Args:
        model: a built model.
        seed: the run's seed.
        collective: of this rank.
    """
    model.set_weights(collective.broadcast(model.get_weights()))
    for index, state in enumerate(seed_states(model)):
        entropy = np.random.SeedSequence(
            [seed & 0xFFFFFFFF, collective.rank, index]
        ).generate_state(1)[0]
        state.assign(np.array([int(entropy) & 0x7FFFFFFF, 0], dtype=np.dtype(state.dtype)))


def average_state(model: keras.Model, collective: Collective) -> None:
    """Give every rank the mean over ranks of the state that no gradient trains.

    Moving statistics (BatchNormalization) differ from rank to rank; validation and export must be
    of one model. Seeds of random layers and counters stay as they are.

    Args:
        model: a built model.
        collective: of this rank.
    """
    if collective.world_size == 1:
        return
    seeds = {id(state) for state in seed_states(model)}
    moving = [
        variable
        for variable in model.non_trainable_variables
        if id(variable) not in seeds and np.issubdtype(np.dtype(variable.dtype), np.floating)
    ]
    if not moving:
        return
    sums = collective.sum_arrays([np.asarray(variable.numpy()) for variable in moving])
    for variable, total in zip(moving, sums, strict=True):
        variable.assign(total / collective.world_size)

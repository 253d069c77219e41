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

__all__ = ["build_model", "resolve_function"]


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
    if collective.world_size > 1:
        # XLA cannot compile a step that holds a CPU collective
        model.jit_compile = False
        model.optimizer = distributed(model.optimizer, collective)
    return model


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

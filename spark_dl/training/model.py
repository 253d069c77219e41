"""From the user's `model_fn` to a model that trains on all ranks alike."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import keras

from spark_dl.errors import ConfigError, did_you_mean
from spark_dl.training.optimizer import distributed

if TYPE_CHECKING:
    from collections.abc import Callable

    from spark_dl.schema import FeatureSpec
    from spark_dl.training.collective import Collective
    from spark_dl.training.task import TrainTask

__all__ = ["build_model", "resolve_function"]

#: Loss reductions whose mean over ranks is not their value over all rows.
_UNFIT_REDUCTIONS = ("sum", "mean_with_sample_weight")


def resolve_function(
    reference: Callable[..., Any] | str, *, setting: str = "model_fn"
) -> Callable[..., Any]:
    """Return a function given as itself or as ``"package.module:function"``.

    Args:
        reference: the function.
        setting: what it was given as, for errors.

    Raises:
        ConfigError: it cannot be imported here, on the executor; the message says how to ship it.
    """
    if not isinstance(reference, str):
        return reference
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        msg = f"{setting} {reference!r}: expected 'package.module:function'"
        raise ConfigError(msg)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        msg = (
            f"{setting} {reference!r} cannot be imported on the executor: {error}; "
            "ship it with --py-files, install it there, or give the function itself"
        )
        raise ConfigError(msg) from error
    function = getattr(module, name, None)
    if not callable(function):
        hint = did_you_mean(name, [key for key in vars(module) if not key.startswith("_")])
        msg = (
            f"{setting} {reference!r}: module {module_name} ({module.__file__}) has no function "
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
    model = resolve_function(task.model_fn or "")(spec, dict(task.params))
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

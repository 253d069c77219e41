"""The state of a model in training, as arrays: what a checkpoint must hold and put back.

Three things are on no list of Keras' own savers: the seeds of random layers, the variables of the
metrics in the middle of an epoch, and the statistics that differ from rank to rank.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import keras

    from spark_dl.training.checkpoint import Arrays
    from spark_dl.training.collective import Collective

__all__ = ["Snapshot", "averaged_state", "equalise", "restore", "seed_states", "snapshot"]

_LEAST_SEED_BITS: Final = 0x7FFFFFFF


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Copies of all variables of a model in training.

    Attributes:
        shared: weights and optimizer, equal on all ranks; empty where the rank is not the chief.
        own: what is this rank's own.
    """

    shared: Arrays
    own: Arrays


def seed_states(model: keras.Model) -> list[Any]:
    """Return the states of the model's random layers, which `model.weights` does not hold."""
    return [
        variable for variable in model.variables if variable.path.endswith("seed_generator_state")
    ]


def _moving(model: keras.Model) -> list[Any]:
    """Return the statistics that no gradient trains, such as those of BatchNormalization."""
    seeds = {id(state) for state in seed_states(model)}
    return [
        variable
        for variable in model.non_trainable_variables
        if id(variable) not in seeds and np.issubdtype(np.dtype(variable.dtype), np.floating)
    ]


def _groups(model: keras.Model) -> dict[str, list[Any]]:
    return {
        "weights": list(model.weights),
        "optimizer": list(model.optimizer.variables),
        "moving": _moving(model),
        "seed": seed_states(model),
        "metric": list(model.metrics_variables),
    }


_SHARED: Final = ("weights", "optimizer")
_OWN: Final = ("moving", "seed", "metric")


def _arrays(groups: dict[str, list[Any]], names: Sequence[str]) -> Arrays:
    return {
        f"{name}/{i}": np.array(variable.numpy())
        for name in names
        for i, variable in enumerate(groups[name])
    }


def snapshot(model: keras.Model, *, shared: bool) -> Snapshot:
    """Copy a model's state, so that training may go on while it is written.

    Args:
        model: built, its optimizer and metrics too.
        shared: whether to copy what all ranks share.
    """
    groups = _groups(model)
    return Snapshot(shared=_arrays(groups, _SHARED) if shared else {}, own=_arrays(groups, _OWN))


def restore(
    model: keras.Model, shared: Arrays, own: Sequence[Arrays], *, seed: int, collective: Collective
) -> None:
    """Give a model the state of a checkpoint.

    Taken by as many ranks as there are now, every rank gets its own part back, bit for bit. Taken
    by another number, every rank gets the mean of the parts' statistics and new seeds, and the
    chief the sum of the metrics' variables.

    Args:
        model: built, its optimizer and metrics too.
        shared: the shared part.
        own: the ranks' own parts, in order.
        seed: the run's seed.
        collective: of this rank.

    Raises:
        ConfigError: the checkpoint is of another model.
    """
    groups = _groups(model)
    _assign(groups, _SHARED, shared)
    if len(own) == collective.world_size:
        _assign(groups, _OWN, own[collective.rank])
        return
    _assign(groups, ("moving",), _merged(own, "moving", np.mean))
    sums = _merged(own, "metric", np.sum)
    if collective.rank:
        sums = {name: np.zeros_like(value) for name, value in sums.items()}
    _assign(groups, ("metric",), sums)
    _own_seeds(model, seed, collective.rank, world_size=collective.world_size)


def _merged(parts: Sequence[Arrays], group: str, merge: Any) -> Arrays:  # noqa: ANN401 - a numpy reduction
    names = [name for name in parts[0] if name.startswith(f"{group}/")]
    return {
        name: merge([np.asarray(part[name], np.float64) for part in parts], axis=0)
        for name in names
    }


def _assign(groups: dict[str, list[Any]], names: Sequence[str], arrays: Arrays) -> None:
    for name in names:
        found = sum(key.startswith(f"{name}/") for key in arrays)
        if found != len(groups[name]):
            msg = (
                f"the checkpoint is of another model: it holds {found} variables of kind {name}, "
                f"model_fn's model has {len(groups[name])}; use a new run_id for a changed model"
            )
            raise ConfigError(msg)
        for i, variable in enumerate(groups[name]):
            array = arrays[f"{name}/{i}"]
            if array.dtype.kind == "V":  # numpy saves bfloat16 without its name
                array = array.view(np.dtype(variable.dtype))
            if tuple(array.shape) != tuple(variable.shape):
                msg = (
                    f"the checkpoint is of another model: variable {variable.path} has shape "
                    f"{list(array.shape)} in it, {list(variable.shape)} in model_fn's model; use "
                    "a new run_id for a changed model"
                )
                raise ConfigError(msg)
            variable.assign(array)


def equalise(model: keras.Model, seed: int, collective: Collective) -> None:
    """Give every rank rank 0's weights, and its own seeds; the model must be built.

    Args:
        model: a built model.
        seed: the run's seed.
        collective: of this rank.
    """
    model.set_weights(collective.broadcast(model.get_weights()))
    _own_seeds(model, seed, collective.rank)


def _own_seeds(model: keras.Model, *entropy: int, world_size: int | None = None) -> None:
    mixed = [number & 0xFFFFFFFF for number in entropy]
    if world_size is not None:  # resumed by another number of ranks: not the first steps' again
        mixed.append(world_size)
    for index, state in enumerate(seed_states(model)):
        drawn = np.random.SeedSequence([*mixed, index]).generate_state(1)[0]
        state.assign(np.array([int(drawn) & _LEAST_SEED_BITS, 0], dtype=np.dtype(state.dtype)))


@contextlib.contextmanager
def averaged_state(model: keras.Model, collective: Collective) -> Iterator[None]:
    """Give every rank the mean over ranks of the statistics that no gradient trains, for a while.

    Validation and export must be of one model; training goes on with each rank's own.

    Args:
        model: a built model.
        collective: of this rank.
    """
    moving = _moving(model) if collective.world_size > 1 else []
    if not moving:
        yield
        return
    own = [np.array(variable.numpy()) for variable in moving]
    sums = collective.sum_arrays(own)
    for variable, total in zip(moving, sums, strict=True):
        variable.assign(total / collective.world_size)
    yield
    for variable, value in zip(moving, own, strict=True):
        variable.assign(value)

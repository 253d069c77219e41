"""What a user's own functions get to see of the rank that they run on, and their callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from spark_dl.errors import ConfigError
from spark_dl.training.model import resolve_function

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spark_dl.storage import RunPaths
    from spark_dl.training.task import TrainTask

__all__ = ["Rank", "user_callbacks"]


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One rank of a run, as a user's function sees it.

    Attributes:
        rank: this process's rank, 0 is the chief.
        world_size: number of ranks.
        paths: the run's directory.
        params: the model's parameters.
    """

    rank: int
    world_size: int
    paths: RunPaths
    params: Mapping[str, Any]

    @property
    def is_chief(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0


def user_callbacks(task: TrainTask, rank: Rank) -> list[keras.callbacks.Callback]:
    """Return the user's callbacks of this rank.

    Args:
        task: holds them: objects, or a function of a `Rank` that makes them.
        rank: this rank.

    Raises:
        ConfigError: something in them is no callback.
    """
    given: Any = task.callbacks
    if given is None:
        return []
    if isinstance(given, str) or (
        callable(given) and not isinstance(given, keras.callbacks.Callback)
    ):
        given = resolve_function(given, setting="callbacks")(rank)
    if isinstance(given, keras.callbacks.Callback):
        given = [given]
    callbacks = list(given or [])
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            msg = (
                f"callbacks holds {type(callback).__name__}, expected keras.callbacks.Callback "
                "objects, or a function callbacks(rank) that returns them"
            )
            raise ConfigError(msg)
    return callbacks

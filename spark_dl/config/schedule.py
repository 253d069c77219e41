"""``training.learning_rate`` and ``training.validation``: what happens at which step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from spark_dl.config.base import PositiveInt, Section

if TYPE_CHECKING:
    from typing import Self

__all__ = ["LearningRateConfig", "ValidationConfig"]


class LearningRateConfig(Section):
    """``training.learning_rate``: what becomes of the rate that the model was compiled with.

    Attributes:
        scale: factor by the number of workers: ``linear``, ``sqrt``, or ``none``, the default: here
            the global batch size stays what it is however many workers share it, so that the rate
            fits as it is. For whoever raises the batch size with the workers.
        warmup_steps: steps over which the rate grows from its start to its full value; none by
            default.
        warmup_from: the rate's start, as a part of its full value; 0.1.
    """

    scale: Literal["none", "linear", "sqrt"] = "none"
    warmup_steps: Annotated[int, Field(strict=True, ge=0)] = 0
    warmup_from: Annotated[float, Field(ge=0, le=1)] = 0.1

    @property
    def changes_nothing(self) -> bool:
        """Whether the model's own rate holds."""
        return self.scale == "none" and not self.warmup_steps

    def rate(self, base: float, *, world_size: int, step: int) -> float:
        """Return the learning rate of a step; pure.

        Args:
            base: the rate that the model was compiled with.
            world_size: number of ranks.
            step: steps that are done since the start of the run.

        Example:
            >>> LearningRateConfig(scale="linear").rate(0.1, world_size=4, step=0)
            0.4
        """
        factors = {"none": 1.0, "linear": float(world_size), "sqrt": math.sqrt(world_size)}
        full = base * factors[self.scale]
        if step >= self.warmup_steps:
            return full
        done = step / self.warmup_steps
        return full * (self.warmup_from + (1 - self.warmup_from) * done)


class ValidationConfig(Section):
    """``training.validation``: when the split ``validation`` is evaluated.

    Attributes:
        every_epochs: epochs between two validations; 1, because callbacks such as EarlyStopping
            look at each. `None` for none at an epoch's end.
        every_steps: steps between two validations in the middle of an epoch, for epochs that take
            hours; their metrics are logged beside the steps', callbacks do not see them. None by
            default.
    """

    every_epochs: PositiveInt | None = 1
    every_steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _ever(self) -> Self:
        if self.every_epochs is None and self.every_steps is None:
            msg = (
                "every_epochs and every_steps are both null, so that nothing is validated; give "
                "the dataset no split `validation` if that is meant"
            )
            raise ValueError(msg)
        return self

    def ends_epoch(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, ends with a validation."""
        return self.every_epochs is not None and (epoch + 1) % self.every_epochs == 0

    def follows_step(self, step: int) -> bool:
        """Whether a step, counted from 1 over the run, is followed by a validation."""
        return self.every_steps is not None and step % self.every_steps == 0

"""``training.checkpoint``: when a run saves its state, and how many of them it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from spark_dl.config.base import PositiveInt, PositiveSeconds, Section, Text

if TYPE_CHECKING:
    from typing import Self

__all__ = ["CheckpointConfig"]


class CheckpointConfig(Section):
    """``training.checkpoint``: what a lost worker costs.

    Any of the three distances makes a checkpoint due; the end of training always does.

    Attributes:
        every_epochs: epochs between two checkpoints; 1, because an epoch's end is the cheapest
            place. `None` for none.
        every_steps: steps between two checkpoints; by default only epochs count.
        every_s: seconds between two checkpoints, for epochs that take hours; by default only
            epochs count.
        keep: number of newest checkpoints that are kept. Two, so that there is another one should
            the newest be damaged.
        best: a metric, such as ``val_loss``; the checkpoint of the epoch that is best by it is kept
            as well.
        mode: whether the best is the ``min`` or the ``max``; ``auto`` takes the least loss or error
            and the greatest of anything else.
        timeout_s: seconds until all workers must have written their parts; a big model on slow
            storage takes minutes.
    """

    every_epochs: PositiveInt | None = 1
    every_steps: PositiveInt | None = None
    every_s: PositiveSeconds | None = None
    keep: PositiveInt = 2
    best: Text | None = None
    mode: Literal["auto", "min", "max"] = "auto"
    timeout_s: PositiveSeconds = 600.0

    @model_validator(mode="after")
    def _mode_of_what(self) -> Self:
        if self.mode != "auto" and self.best is None:
            msg = f"mode: {self.mode} needs a metric to compare by, such as best: val_loss"
            raise ValueError(msg)
        return self

    @property
    def least_is_best(self) -> bool:
        """Whether smaller values of `best` are better."""
        if self.mode != "auto":
            return self.mode == "min"
        return self.best is not None and any(word in self.best for word in ("loss", "error"))

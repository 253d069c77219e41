"""Epochs of any length over the passes of a split: which rows a step of the run meets. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EpochPlan"]


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """How epochs lie over passes.

    Attributes:
        pass_steps: steps of one pass over the training split.
        steps_per_epoch: steps of an epoch.
        epochs: epochs of the run.

    Example:
        >>> EpochPlan(pass_steps=10, steps_per_epoch=4, epochs=3).passes_from(epoch=2, step=1)
        (range(0, 2), 9)
    """

    pass_steps: int
    steps_per_epoch: int
    epochs: int

    def passes_from(self, epoch: int, step: int) -> tuple[range, int]:
        """Return the passes that are left, and the step of the first to begin with.

        Args:
            epoch: an epoch, from 0.
            step: a step of it, from 0.
        """
        first, within = divmod(epoch * self.steps_per_epoch + step, self.pass_steps)
        last = -(-self.epochs * self.steps_per_epoch // self.pass_steps)
        return range(first, last), within

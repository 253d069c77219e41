"""Classes as labels: what a model says about a label that was text in the table.

Pure: neither pyspark nor tensorflow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from spark_dl.inference.model import ModelOutput

__all__ = ["Labels", "label_output", "probabilities"]

_BINARY: Final = 2


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How the classes of one output become labels.

    Attributes:
        output: name of the output.
        vocabulary: the labels, by class.
        from_logits: whether the output holds logits and not probabilities.
        fields: names of the two fields of the result: the label and its probability.
    """

    output: str
    vocabulary: tuple[str, ...]
    from_logits: bool
    fields: tuple[str, str]

    def columns(self, values: npt.NDArray[np.generic]) -> list[pa.Array]:
        """Return the label of each row and its probability.

        Args:
            values: ``[rows, classes]``, or ``[rows, 1]`` with the probability of the second label.
        """
        by_class = probabilities(values, from_logits=self.from_logits)
        chosen = by_class.argmax(axis=1)
        certain = by_class[np.arange(len(by_class)), chosen].astype(np.float32)
        return [pa.array(self.vocabulary, pa.string()).take(pa.array(chosen)), pa.array(certain)]


def probabilities(
    values: npt.NDArray[np.generic], *, from_logits: bool
) -> npt.NDArray[np.floating]:
    """Return the probability of each class.

    Args:
        values: ``[rows, classes]``; ``[rows, 1]`` or ``[rows]`` of a model that tells two apart.
        from_logits: whether they are logits.

    Returns:
        ``float32 [rows, classes]``, at least two classes.

    Example:
        >>> probabilities(np.float32([[0.25]]), from_logits=False).tolist()
        [[0.75, 0.25]]
    """
    found: npt.NDArray[np.float32] = values.astype(np.float32)
    found = found.reshape(len(values), math.prod(values.shape[1:]))
    if found.shape[1] == 1:
        second = 1 / (1 + np.exp(-found)) if from_logits else found
        return np.concatenate([1 - second, second], axis=1)
    if not from_logits:
        return found
    powers: npt.NDArray[np.float32] = np.exp(
        found - found.max(axis=1, keepdims=True, initial=-np.inf)
    )
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def label_output(outputs: Mapping[str, ModelOutput], num_classes: int) -> str | None:
    """Return the one output that tells so many classes apart; `None` if there is not one."""
    shapes = [(num_classes,)] + ([(), (1,)] if num_classes == _BINARY else [])
    fitting = [
        name
        for name, output in outputs.items()
        if output.shape in shapes and output.dtype.startswith(("float", "bfloat"))
    ]
    return fitting[0] if len(fitting) == 1 else None

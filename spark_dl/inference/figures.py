"""What an evaluation finds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spark_dl.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Confusion", "Evaluation", "confusion_of"]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often which class was taken for which.

    Attributes:
        labels: the classes.
        counts: rows of each true class (outer) and predicted class (inner).
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def accuracy(self) -> float:
        """The share of rows whose class was found."""
        right = sum(row[index] for index, row in enumerate(self.counts))
        return right / max(1, sum(map(sum, self.counts)))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        rows: rows that were evaluated.
        metrics: the model's own Keras metrics, ``loss`` among them; of a model without loss and
            metrics ``accuracy``, or ``mean_squared_error`` and ``mean_absolute_error``.
        confusion: the confusion matrix; `None` where the model does not tell classes apart.
        model_path: the model.
        run_id: the run that made it; `None` if none of ours did.
        path: folder where this is written, as ``evaluation.json`` and ``report.html``; empty if it
            is not.
    """

    rows: int
    metrics: Mapping[str, float]
    confusion: Confusion | None
    model_path: str
    run_id: str | None
    path: str = ""


def confusion_of(
    pairs: Sequence[Mapping[str, int | None]],
    num_classes: int,
    vocabulary: tuple[str, ...] | None,
) -> Confusion:
    """Return the confusion matrix.

    Args:
        pairs: ``true`` class, ``guess`` and ``count`` of rows, each pair once.
        num_classes: classes that the model tells apart.
        vocabulary: their labels; by default their numbers.

    Raises:
        DataError: a true class is none of them.
        ModelError: the model gave no class, because its output is not a number.
    """
    known = range(num_classes)
    strange = sorted({str(pair["true"]) for pair in pairs if pair["true"] not in known})
    if strange:
        msg = (
            f"the label holds {', '.join(strange[:5])}, the model tells the classes 0 to "
            f"{num_classes - 1} apart"
        )
        raise DataError(msg)
    counts = [[0] * num_classes for _ in known]
    for pair in pairs:
        true, guess, count = pair["true"] or 0, pair["guess"], pair["count"] or 0
        if guess is None or guess not in known:
            msg = f"the model gives no class for {count} rows of class {true}: its output is NaN"
            raise ModelError(msg)
        counts[true][guess] += count
    labels = vocabulary or tuple(str(index) for index in known)
    return Confusion(labels=labels, counts=tuple(tuple(row) for row in counts))

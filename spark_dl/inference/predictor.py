"""Executor side of inference: a loaded model over Arrow columns.

Knows nothing of Spark; TensorFlow is imported when the first model is loaded.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa

from spark_dl.errors import DataError
from spark_dl.inference.arrow import bad_rows, to_arrow, to_numpy, to_packed
from spark_dl.inference.loading import Compute, ModelFile, load_model
from spark_dl.inference.recut import read_ahead, recut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from spark_dl.inference.inputs import BoundInput
    from spark_dl.inference.labels import Labels
    from spark_dl.inference.model import ModelOutput

    Function = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]

__all__ = ["ERROR_FIELD", "OnError", "Predictor", "ScoringTask", "load_predictor"]

OnError = Literal["fail", "null", "quarantine"]

#: Field of the result that says what is wrong with a row; there unless bad rows end the job.
ERROR_FIELD: Final = "error"


@dataclass(frozen=True, kw_only=True)
class ScoringTask:
    """What a task needs to know: plain values, they travel to the executors.

    Attributes:
        file: the model.
        inputs: the inputs, in the order of the columns handed over.
        outputs: the outputs by name.
        fields: name of each output's field in the result.
        batch_size: most rows that the model gets at once.
        labels: how classes become labels; `None` where they have none.
        on_error: what a bad row does: ``fail`` ends the job, else its predictions are null.
        packed: names of the outputs that cross as binaries of their numbers.
    """

    file: ModelFile
    inputs: tuple[BoundInput, ...]
    outputs: Mapping[str, ModelOutput]
    fields: Mapping[str, str]
    batch_size: int
    labels: Labels | None = None
    on_error: OnError = "fail"
    packed: frozenset[str] = frozenset()


class Predictor:
    """A loaded model.

    Args:
        function: takes the inputs by name (batch first), gives the outputs by name.
        task: what it is to do.
    """

    def __init__(self, function: Function, task: ScoringTask) -> None:
        """Keep the function."""
        self._function = function
        self._task = task

    def stream(self, batches: Iterable[Sequence[pa.Array]]) -> Iterator[pa.StructArray]:
        """Yield the predictions of all batches, cut anew to the model's batch size.

        While the model computes, a thread fetches and cuts what it gets next.

        Args:
            batches: one column an input, in the task's order.

        Raises:
            DataError: a row that the model cannot take, if such a row is to end the job.
            ModelError: the model gave something else than its description promises.
        """
        for arrays in read_ahead(recut(batches, self._task.batch_size)):
            yield self.predict(arrays)

    def predict(self, arrays: Sequence[pa.Array]) -> pa.StructArray:
        """Return the predictions of one batch, one row an input row, one field an output.

        Raises:
            DataError: as `stream`.
            ModelError: as `stream`.
        """
        rows = len(arrays[0])
        if not rows:
            tolerant = self._task.on_error != "fail"
            return self._struct(self._columns_of_no_rows(), {} if tolerant else None, 0)
        bad: dict[int, str] = {}
        for one, array in zip(self._task.inputs, arrays, strict=True):
            for row, reason in bad_rows(array, one).items():
                bad.setdefault(row, reason)
        if self._task.on_error == "fail":
            if bad:
                raise _bad_row(bad, rows)
            return self._struct(self._run(arrays), None, rows)
        return self._tolerant(arrays, bad, rows)

    def _tolerant(
        self, arrays: Sequence[pa.Array], bad: dict[int, str], rows: int
    ) -> pa.StructArray:
        """Predict the good rows; the bad ones get null and a reason."""
        if not bad:
            with contextlib.suppress(DataError):
                return self._struct(self._run(arrays), bad, rows)
        good = np.setdiff1d(np.arange(rows), np.fromiter(bad, np.int64, len(bad)))
        done, refused = self._isolate(arrays, good)
        bad |= refused
        places = np.full(rows, -1, np.int64)
        for at, row in enumerate(row for rows_of, _ in done for row in rows_of):
            places[row] = at
        index = pa.array(places, mask=places < 0)
        parts = [columns for _, columns in done] or [self._columns_of_no_rows()]
        joined = [pa.concat_arrays(pieces).take(index) for pieces in zip(*parts, strict=True)]
        return self._struct(joined, bad, rows)

    def _isolate(
        self, arrays: Sequence[pa.Array], rows: npt.NDArray[np.int64]
    ) -> tuple[list[tuple[list[int], list[pa.Array]]], dict[int, str]]:
        """Run the model; a batch that it refuses is halved until the refused rows are alone."""
        if not len(rows):
            return [], {}
        whole = len(rows) == len(arrays[0])
        chosen = arrays if whole else [array.take(pa.array(rows)) for array in arrays]
        try:
            return [(rows.tolist(), self._run(chosen))], {}
        except DataError as error:
            if len(rows) == 1:
                return [], {int(rows[0]): str(error)}
        half = len(rows) // 2
        done, refused = self._isolate(arrays, rows[:half])
        more, others = self._isolate(arrays, rows[half:])
        return done + more, refused | others

    def _run(self, arrays: Sequence[pa.Array]) -> list[pa.Array]:
        """Return the result's columns for rows that are good."""
        task = self._task
        inputs = {
            one.name: to_numpy(array, one) for one, array in zip(task.inputs, arrays, strict=True)
        }
        return self._columns(self._function(inputs))

    def _columns_of_no_rows(self) -> list[pa.Array]:
        nothing = {
            name: np.empty((0, *(dim or 0 for dim in output.shape)), output.numpy_dtype)
            for name, output in self._task.outputs.items()
        }
        return self._columns(nothing)

    def _columns(self, values: Mapping[str, npt.NDArray[Any]]) -> list[pa.Array]:
        """Return the model's outputs as columns, with those of the labels after them."""
        task = self._task
        columns = [
            (to_packed if name in task.packed else to_arrow)(values[name], name, output)
            for name, output in task.outputs.items()
        ]
        if task.labels is not None:
            columns += task.labels.columns(values[task.labels.output])
        return columns

    def _struct(
        self, columns: list[pa.Array], bad: Mapping[int, str] | None, rows: int
    ) -> pa.StructArray:
        task = self._task
        names = list(task.fields.values())
        if task.labels is not None:
            names += task.labels.fields
        if bad is not None:
            names.append(ERROR_FIELD)
            reasons = [bad.get(row) for row in range(rows)] if bad else [None] * rows
            columns = [*columns, pa.array(reasons, pa.string())]
        return pa.StructArray.from_arrays(columns, names)


def _bad_row(bad: Mapping[int, str], rows: int) -> DataError:
    return DataError(
        f"{bad[min(bad)]} ({len(bad)} of {rows} rows of a batch are bad): filter or fill them, or "
        "set on_error to 'null' or 'quarantine'"
    )


def load_predictor(task: ScoringTask, compute: Compute) -> Predictor:
    """Return the predictor of a model, loading it only if this process has not done so yet.

    Raises:
        ModelError: the model cannot be loaded, or does not take these inputs.
    """
    model = load_model(task.file, compute)
    model.check_inputs([one.name for one in task.inputs], task.file.path)
    return Predictor(model.run, task)

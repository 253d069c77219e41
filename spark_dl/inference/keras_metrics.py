"""Executor side of an evaluation: a model's own Keras metrics over the rows of many tasks.

Every Keras metric is a function of variables that are sums over rows. Each task updates them on its
rows, the sums of all tasks give the metrics: exactly those of one process over all rows. Knows
nothing of Spark.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from spark_dl.errors import DataError, ModelError
from spark_dl.inference.arrow import bad_rows, to_numpy
from spark_dl.inference.keras_files import input_structure
from spark_dl.inference.loading import Compute, ModelFile, load_compiled
from spark_dl.inference.recut import recut

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from spark_dl.inference.inputs import BoundInput

__all__ = ["MetricsTask", "merged_metrics", "partial_metrics"]


@dataclass(frozen=True, kw_only=True)
class MetricsTask:
    """What a task needs to know: plain values.

    Attributes:
        file: a ``.keras`` file.
        inputs: the inputs; their columns come first.
        label: name of the label's column, which comes next.
        has_weight: whether a column of weights comes last.
        batch_size: rows of a batch.
    """

    file: ModelFile
    inputs: tuple[BoundInput, ...]
    label: str
    has_weight: bool
    batch_size: int


def partial_metrics(
    batches: Iterable[pa.RecordBatch], task: MetricsTask, compute: Compute
) -> str | None:
    """Return the sums of one task's rows as JSON text; `None` for no rows.

    Raises:
        DataError: a row is bad, or has no label.
        ModelError: the model has no loss and metrics, or some that are no sums.
    """
    model, sample = None, b""
    sums: list[npt.NDArray[np.float64]] = []
    for columns in recut((batch.columns for batch in batches if batch.num_rows), task.batch_size):
        if model is None:
            model = load_compiled(task.file, compute)
            sample = _packed([column.slice(0, 1) for column in columns])
        batch = _sums(model, columns, task)
        sums = [a + b for a, b in zip(sums, batch, strict=True)] if sums else batch
    if model is None:
        return None
    return json.dumps(
        {
            "sums": [[list(one.shape), one.ravel().tolist()] for one in sums],
            "sample": base64.b64encode(sample).decode(),
        }
    )


def merged_metrics(parts: Sequence[str], task: MetricsTask, compute: Compute) -> dict[str, float]:
    """Return the metrics of all rows, ``loss`` among them.

    Args:
        parts: what the tasks returned, at least one.
        task: as they were told.
        compute: what this task may use.
    """
    found = [json.loads(part) for part in parts]
    model = load_compiled(task.file, compute)
    with pa.ipc.open_stream(base64.b64decode(found[0]["sample"])) as reader:
        # one row builds the metrics' variables; their values are replaced
        _sums(model, reader.read_all().combine_chunks().to_batches()[0].columns, task)
    for index, variable in enumerate(_variables(model, task.file.path)):
        total = sum(np.float64(part["sums"][index][1]) for part in found)
        variable.assign(np.reshape(total, found[0]["sums"][index][0]))
    return {name: float(np.asarray(v)) for name, v in model.get_metrics_result().items()}


def _packed(columns: Sequence[pa.Array]) -> bytes:
    batch = pa.RecordBatch.from_arrays(list(columns), [str(i) for i in range(len(columns))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _sums(
    model: Any,  # noqa: ANN401 - Keras'
    columns: Sequence[pa.Array],
    task: MetricsTask,
) -> list[npt.NDArray[np.float64]]:
    """Return the metrics' variables after one batch alone."""
    for one, column in zip(task.inputs, columns, strict=False):
        if bad := bad_rows(column, one):
            msg = f"{bad[min(bad)]} ({len(bad)} of {len(column)} rows of a batch are bad)"
            raise DataError(msg)
    inputs = {
        one.name: to_numpy(column, one) for one, column in zip(task.inputs, columns, strict=False)
    }
    label = columns[len(task.inputs)]
    if label.null_count:
        msg = (
            f"label column {task.label!r}: {label.null_count} rows hold null, or a label that the "
            "model does not know"
        )
        raise DataError(msg)
    weight = columns[-1].to_numpy() if task.has_weight else None
    model.reset_metrics()  # Keras below 3.15 does not do it for each batch
    model.test_on_batch(
        _as_keras_takes(model, inputs),
        label.to_numpy(zero_copy_only=False),
        sample_weight=weight,
        return_dict=True,
    )
    return [np.asarray(v.numpy(), np.float64) for v in _variables(model, task.file.path)]


def _as_keras_takes(model: Any, inputs: dict[str, Any]) -> Any:  # noqa: ANN401 - Keras'
    import keras
    import tensorflow as tf

    tensors = {
        name: tf.constant(value.tolist()) if value.dtype == object else value
        for name, value in inputs.items()
    }
    structure = input_structure(model)
    if isinstance(structure, dict):
        return {name: tensors[name] for name in structure}
    flat = keras.tree.flatten(structure)
    ordered = [tensors[one.name] for one in flat] if len(flat) > 1 else list(tensors.values())
    return keras.tree.pack_sequence_as(structure, ordered)


def _variables(model: Any, path: str) -> list[Any]:  # noqa: ANN401 - Keras'
    variables = list(model.metrics_variables)
    odd = [variable.path for variable in variables if variable.aggregation != "sum"]
    if odd:
        msg = (
            f"the model at {path}: the metric variables {', '.join(odd)} are no sums over rows, so "
            "that several tasks cannot share them: compile it with other metrics"
        )
        raise ModelError(msg)
    return variables

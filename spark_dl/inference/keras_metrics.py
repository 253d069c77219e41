"""Executor side of an evaluation: a model's own Keras metrics over the rows of many tasks.

Every Keras metric is a function of variables that are sums over rows. Each task updates them on its
rows, the sums of all tasks give the metrics: exactly those of one process over all rows. A user's
own metric that is no such sum is refused, as in training (`spark_dl.metric_sums`). Knows nothing of
Spark.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from spark_dl.errors import DataError, MetricError
from spark_dl.inference.arrow import bad_rows, to_numpy
from spark_dl.inference.keras_files import input_structure
from spark_dl.inference.loading import Compute, ModelFile, load_compiled
from spark_dl.inference.recut import recut
from spark_dl.metric_sums import FEW_ROWS, unlike_a_sum

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from spark_dl.inference.inputs import BoundInput

__all__ = ["MetricsTask", "merged_metrics", "partial_metrics"]

_NOT_SHARED: Final = (
    "several tasks cannot share it: compile the model with metrics that are built on sums (such as "
    "keras.metrics.Mean), or without it, and save it again"
)


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
        ModelError: the model has no loss and metrics.
        MetricError: a metric is no sum over rows.
    """
    model, sample = None, b""
    sums: list[npt.NDArray[np.float64]] = []
    for columns in recut((batch.columns for batch in batches if batch.num_rows), task.batch_size):
        if model is None:
            model = load_compiled(task.file, compute)
            sample = _packed([column.slice(0, 1) for column in columns])
            sums = _sums(model, columns, task)
            _check_sums(model, [column.slice(0, FEW_ROWS) for column in columns], task)
            continue
        sums = [a + b for a, b in zip(sums, _sums(model, columns, task), strict=True)]
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
    for index, variable in enumerate(model.metrics_variables):
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
    inputs, labels, weight = _batch(model, columns, task)
    model.reset_metrics()  # Keras below 3.15 does not do it for each batch
    model.test_on_batch(inputs, labels, sample_weight=weight, return_dict=True)
    return [np.asarray(v.numpy(), np.float64) for v in model.metrics_variables]


def _check_sums(
    model: Any,  # noqa: ANN401 - Keras'
    columns: Sequence[pa.Array],
    task: MetricsTask,
) -> None:
    """Refuse metrics that are no sums over rows; the model has met a batch.

    Raises:
        MetricError: naming metric and variable.
    """
    import keras
    import tensorflow as tf

    def feed(times: int) -> None:
        inputs, labels, weight = keras.tree.map_structure(
            lambda values: None if values is None else tf.concat([values] * times, 0),
            _batch(model, columns, task),
        )
        model.evaluate(inputs, labels, sample_weight=weight, batch_size=len(columns[0]), verbose=0)

    reason = unlike_a_sum(model, feed)
    if reason is not None:
        msg = f"the model at {task.file.path}: {reason}: {_NOT_SHARED}"
        raise MetricError(msg)


def _batch(
    model: Any,  # noqa: ANN401 - Keras'
    columns: Sequence[pa.Array],
    task: MetricsTask,
) -> tuple[Any, npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return inputs, labels and weights as Keras takes them."""
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
    return _as_keras_takes(model, inputs), label.to_numpy(zero_copy_only=False), weight


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

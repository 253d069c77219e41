"""Arrow columns to model inputs, model outputs to Arrow columns.

Pure: neither pyspark nor tensorflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from spark_dl.errors import DataError, ModelError
from spark_dl.inference.model import OUTPUT_TYPES
from spark_dl.schema import DType

if TYPE_CHECKING:
    import numpy.typing as npt

    from spark_dl.inference.model import ModelOutput
    from spark_dl.schema import SpecEntry

__all__ = ["to_arrow", "to_numpy"]

_TEXT = (DType.STRING, DType.BINARY)


def to_numpy(column: pa.Array, entry: SpecEntry) -> npt.NDArray[np.generic]:
    """Return a column of rows as the model's input; numbers of fixed shape are not copied.

    Args:
        column: the rows, of the type that `entry` says (a list array where it has a shape).
        entry: the feature.

    Returns:
        ``entry.dtype [rows, *entry.shape]``; strings and binaries as objects. Rows of variable
        length are padded with zeros (empty strings) to the longest among them.

    Raises:
        DataError: a null, or a row whose number of elements is not the feature's; names the column.
    """
    _refuse_nulls(column, entry, "null")
    if not entry.is_array:
        return _elements(column, entry)
    values = column.flatten()
    _refuse_nulls(values, entry, "null inside an array")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    elements = _elements(values, entry)
    if entry.size is None:
        return _padded(elements, lengths, entry)
    wrong = lengths != entry.size
    if wrong.any():
        msg = (
            f"column {entry.column!r}: {int(wrong.sum())} of {len(column)} rows have the wrong "
            "number of elements, the "
            f"first of them {lengths[wrong][0]}; feature {entry.name!r} of shape {entry.shape} "
            f"needs {entry.size}"
        )
        raise DataError(msg)
    return elements.reshape(len(column), *_dims(entry))


def _refuse_nulls(values: pa.Array, entry: SpecEntry, what: str) -> None:
    if values.null_count:
        msg = (
            f"column {entry.column!r}: {what} in {values.null_count} of {len(values)} values of a "
            "batch; feature "
            f"{entry.name!r} takes none: filter these rows out or fill them before predicting"
        )
        raise DataError(msg)


def _elements(values: pa.Array, entry: SpecEntry) -> npt.NDArray[np.generic]:
    if entry.dtype is DType.DATE:
        values = values.cast(pa.date32()).view(pa.int32()).cast(pa.int64())
    elif entry.dtype is DType.TIMESTAMP:
        values = values.cast(pa.timestamp("us", values.type.tz)).view(pa.int64())
    found: npt.NDArray[np.generic] = values.to_numpy(zero_copy_only=False)
    if entry.dtype in _TEXT:
        return found.astype(object, copy=False)
    return found.astype(entry.info.tensor, copy=False)


def _dims(entry: SpecEntry) -> tuple[int, ...]:
    return tuple(dim for dim in entry.shape if dim is not None)


def _padded(
    elements: npt.NDArray[np.generic], lengths: npt.NDArray[np.integer], entry: SpecEntry
) -> npt.NDArray[np.generic]:
    inner = _dims(entry)
    width = int(np.prod(inner, dtype=np.int64))
    if (lengths % width).any():
        msg = (
            f"column {entry.column!r}: a row's number of elements is no multiple of {width}, as "
            "feature "
            f"{entry.name!r} of shape {entry.shape} needs"
        )
        raise DataError(msg)
    steps = lengths // width
    longest = int(steps.max(initial=0))
    fill = "" if entry.dtype in _TEXT else 0
    out = np.full((len(lengths), longest, *inner), fill, dtype=elements.dtype)
    out[np.arange(longest) < steps[:, None]] = elements.reshape(-1, *inner)
    return out


def to_arrow(values: npt.NDArray[np.generic], name: str, output: ModelOutput) -> pa.Array:
    """Return a model's output as a column: a scalar, a list, or lists in lists.

    Args:
        values: ``[rows, *output.shape]``.
        name: the output's name, for the error.
        output: what the model's description says about it.

    Raises:
        ModelError: the shape is not the one that the description promises.
    """
    promised = (None, *output.shape)
    fits = len(values.shape) == len(promised) and all(
        want is None or want == got for want, got in zip(promised, values.shape, strict=True)
    )
    if not fits:
        msg = (
            f"output {name!r} has shape {list(values.shape)}, model.json says {list(promised)}: "
            "export the model again"
        )
        raise ModelError(msg)
    inner = values.shape[1:] if output.dims else ()
    column = _flat(values, output)
    for axis in range(len(inner) - 1, -1, -1):
        size = inner[axis]
        count = len(values) * int(np.prod(inner[:axis], dtype=np.int64))
        offsets = np.arange(count + 1, dtype=np.int32) * size
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column


def _flat(values: npt.NDArray[np.generic], output: ModelOutput) -> pa.Array:
    flat = values.reshape(-1)
    if output.dtype == "string":
        return pa.array(flat, type=pa.binary()).cast(pa.string())
    return pa.array(flat.astype(OUTPUT_TYPES[output.dtype][1], copy=False))

"""Arrow columns to model inputs, model outputs to Arrow columns.

Pure: neither pyspark nor tensorflow.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_dl.errors import ModelError
from spark_dl.inference.inputs import PACKABLE
from spark_dl.inference.model import OUTPUT_TYPES

if TYPE_CHECKING:
    import numpy.typing as npt

    from spark_dl.inference.inputs import BoundInput
    from spark_dl.inference.model import ModelOutput

__all__ = ["bad_rows", "to_arrow", "to_numpy", "to_packed"]

_TEXT: Final = ("string", "binary")
#: dtypes without a Spark type of their own: a wider one carries them, within these limits.
_LIMITS: Final = {"uint8": 2**8 - 1, "uint16": 2**16 - 1, "uint32": 2**32 - 1}
#: What stands for an array that the connector could not pack begins with (PackedArrays.scala).
_HOLDS_NULL: Final = 1


def bad_rows(column: pa.Array, one: BoundInput) -> dict[int, str]:
    """Return what is wrong with which rows of a column; of most batches nothing.

    Args:
        column: the rows.
        one: the input.

    Returns:
        index of the row to the reason, which names column and input.
    """
    bad: dict[int, str] = {}
    if column.null_count:
        _note(
            bad, pc.is_null(column), f"column {one.column!r}: null; input {one.name!r} takes none"
        )
    if one.kind == "scalar":
        _find_outside(bad, column, one, None)
        return bad
    if one.kind == "packed":
        _find_unpacked(bad, column, one)
        return bad
    lengths = _lengths(column, one)
    _find_wrong_lengths(bad, lengths, one)
    if one.kind == "array":
        values = column.flatten()
        if values.null_count:
            rows = pc.list_parent_indices(column).filter(pc.is_null(values))
            for row in rows.unique().to_pylist():
                bad.setdefault(row, _null_inside(one))
        _find_outside(bad, values, one, column)
    return bad


def _note(bad: dict[int, str], mask: pa.Array, reason: str) -> None:
    for row in pc.indices_nonzero(mask).to_pylist():
        bad.setdefault(row, reason)


def _lengths(column: pa.Array, one: BoundInput) -> npt.NDArray[np.int64]:
    """Return the number of elements of each row; -1 for null."""
    is_list = one.kind == "array"
    lengths = column.value_lengths() if is_list else pc.binary_length(column)
    if lengths.null_count:
        lengths = pc.fill_null(lengths, -1)
    found: npt.NDArray[np.int64] = lengths.to_numpy(zero_copy_only=False)
    return found


def _find_wrong_lengths(
    bad: dict[int, str], lengths: npt.NDArray[np.int64], one: BoundInput
) -> None:
    inner = math.prod(one.inner)
    if one.size is not None:
        wrong, needs = lengths != one.size, str(one.size)
    elif inner > 1:
        wrong, needs = lengths % inner != 0, f"a multiple of {inner}"
    else:
        return
    for row in np.flatnonzero(wrong & (lengths >= 0)).tolist():
        bad.setdefault(row, _other_length(one, lengths[row], needs))


def _other_length(one: BoundInput, got: int, needs: str) -> str:
    return (
        f"column {one.column!r}: {got} elements, input {one.name!r} of shape {one.shape} "
        f"needs {needs}"
    )


def _null_inside(one: BoundInput) -> str:
    return f"column {one.column!r}: null inside an array"


def _find_unpacked(bad: dict[int, str], column: pa.Array, one: BoundInput) -> None:
    """Find the rows that could not be packed; an odd number of bytes says why."""
    lengths = _lengths(column, one)
    whole = (one.size or 0) * np.dtype(PACKABLE[one.element]).itemsize
    for row in np.flatnonzero((lengths != whole) & (lengths >= 0)).tolist():
        why = column[row].as_py()
        if why[0] == _HOLDS_NULL:
            reason = _null_inside(one)
        else:
            reason = _other_length(one, int.from_bytes(why[1:], sys.byteorder), str(one.size))
        bad.setdefault(row, reason)


def _find_outside(
    bad: dict[int, str], values: pa.Array, one: BoundInput, lists: pa.Array | None
) -> None:
    limit = _LIMITS.get(one.dtype)
    if limit is None:
        return
    outside = pc.or_(pc.less(values, 0), pc.greater(values, limit))
    if not pc.any(outside).as_py():
        return
    rows = np.arange(len(values)) if lists is None else pc.list_parent_indices(lists).to_numpy()
    reason = f"column {one.column!r}: a value outside 0 to {limit}, all that {one.dtype} holds"
    for index in pc.indices_nonzero(pc.fill_null(outside, False)).to_pylist():  # noqa: FBT003
        bad.setdefault(int(rows[index]), reason)


def to_numpy(column: pa.Array, one: BoundInput) -> npt.NDArray[np.generic]:
    """Return a column of good rows as the model's input; numbers of fixed shape are not copied.

    Args:
        column: the rows, of which `bad_rows` finds none bad.
        one: the input.

    Returns:
        ``one.dtype [rows, *one.shape]``; strings and binaries as objects; ``bfloat16`` as float32.
        Rows of variable length are padded with zeros (empty strings) to the longest among them.
    """
    if one.kind in ("bytes", "packed"):
        return _from_bytes(column, one)
    if one.kind == "scalar":
        values = _elements(column, one)
        return values.reshape(len(column), *one.inner) if one.shape else values
    elements = _elements(column.flatten(), one)
    if one.size is None:
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        return _padded(elements, lengths, one)
    return elements.reshape(len(column), *one.inner)


def _from_bytes(column: pa.Array, one: BoundInput) -> npt.NDArray[np.generic]:
    """View binaries of equal length as one array, without a copy."""
    data = column.buffers()[2]
    size = math.prod(one.inner)
    if data is None:
        return np.empty((len(column), *one.inner), _numpy_dtype(one))
    stored = PACKABLE[one.element] if one.kind == "packed" else one.dtype
    wide = pa.types.is_large_binary(column.type)
    offsets = np.frombuffer(column.buffers()[1], np.int64 if wide else np.int32)
    start = int(offsets[column.offset])
    flat = np.frombuffer(data, stored, count=len(column) * size, offset=start)
    return flat.astype(_numpy_dtype(one), copy=False).reshape(len(column), *one.inner)


def _numpy_dtype(one: BoundInput) -> str:
    """Return the dtype that the model is handed; numpy has no bfloat16, TensorFlow makes it."""
    return "float32" if one.dtype == "bfloat16" else one.dtype


def _elements(values: pa.Array, one: BoundInput) -> npt.NDArray[np.generic]:
    if one.element == "date":
        values = values.cast(pa.date32()).view(pa.int32()).cast(pa.int64())
    elif one.element == "timestamp":
        values = values.cast(pa.timestamp("us", values.type.tz)).view(pa.int64())
    found: npt.NDArray[np.generic] = values.to_numpy(zero_copy_only=False)
    if one.element in _TEXT:
        return found.astype(object, copy=False)
    return found.astype(_numpy_dtype(one), copy=False)


def _padded(
    elements: npt.NDArray[np.generic], lengths: npt.NDArray[np.integer], one: BoundInput
) -> npt.NDArray[np.generic]:
    inner = one.inner
    steps = lengths // max(1, math.prod(inner))
    longest = int(steps.max(initial=0))
    fill = "" if one.element in _TEXT else 0
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
    _check_shape(values, name, output)
    inner = values.shape[1:] if output.dims else ()
    column = _flat(values, output)
    for axis in range(len(inner) - 1, -1, -1):
        size = inner[axis]
        count = len(values) * math.prod(inner[:axis])
        offsets = np.arange(count + 1, dtype=np.int32) * size
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column


def to_packed(values: npt.NDArray[np.generic], name: str, output: ModelOutput) -> pa.Array:
    """Return a model's output of vectors as binaries of their numbers, without a copy.

    Args:
        values: ``[rows, *output.shape]``.
        name: the output's name, for the error.
        output: what the model's description says about it: a vector of fixed length.

    Raises:
        ModelError: as `to_arrow`.
    """
    _check_shape(values, name, output)
    stored = np.ascontiguousarray(values, output.numpy_dtype)
    width = math.prod(stored.shape[1:]) * stored.itemsize
    offsets = np.arange(len(stored) + 1, dtype=np.int32) * width
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(stored)]
    return pa.Array.from_buffers(pa.binary(), len(stored), buffers)


def _check_shape(values: npt.NDArray[np.generic], name: str, output: ModelOutput) -> None:
    promised = (None, *output.shape)
    fits = len(values.shape) == len(promised) and all(
        want is None or want == got for want, got in zip(promised, values.shape, strict=True)
    )
    if not fits:
        msg = (
            f"output {name!r} has shape {list(values.shape)}, the model's description says "
            f"{list(promised)}: export the model again"
        )
        raise ModelError(msg)


def _flat(values: npt.NDArray[np.generic], output: ModelOutput) -> pa.Array:
    flat = values.reshape(-1)
    if output.dtype == "string":
        return pa.array(flat, type=pa.binary()).cast(pa.string())
    return pa.array(flat.astype(OUTPUT_TYPES[output.dtype][1], copy=False))

"""From a `FeatureSpec` to what `tf.io` parses and what a model sees.

tensorflow is imported when a function runs; `signature` needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spark_dl.schema.spec import Role
from spark_dl.schema.types import DType, ExampleKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spark_dl.schema.spec import FeatureSpec, SpecEntry

__all__ = ["decode", "example_features", "signature"]

#: Roles whose values reach the model.
_READ = (Role.FEATURE, Role.LABEL, Role.WEIGHT)


def signature(spec: FeatureSpec) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Return the model's inputs: name to TensorFlow's name of the dtype and shape of one row.

    Args:
        spec: spec of a dataset.

    Returns:
        one item a feature, in order; shapes come without the batch dimension.
    """
    return {entry.name: (entry.info.tensor, entry.shape) for entry in spec.features}


def example_features(spec: FeatureSpec) -> dict[str, Any]:
    """Return what `tf.io.parse_example` needs to parse features, label and weight.

    Args:
        spec: spec of a dataset.

    Returns:
        key to ``FixedLenFeature``, or ``RaggedFeature`` where the first dimension varies.
    """
    import tensorflow as tf

    kinds = {
        ExampleKind.INT64: tf.int64,
        ExampleKind.FLOAT: tf.float32,
        ExampleKind.BYTES: tf.string,
    }
    parsers: dict[str, Any] = {}
    for entry in _entries(spec):
        dtype = kinds[entry.info.example]
        if entry.size is None:
            parsers[entry.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            parsers[entry.name] = tf.io.FixedLenFeature(entry.shape, dtype)
    return parsers


def decode(parsed: Mapping[str, Any], spec: FeatureSpec) -> tuple[dict[str, Any], Any, Any]:
    """Turn what `tf.io.parse_example` gave into what a model sees.

    Args:
        parsed: tensors of a batch by key, parsed with `example_features`.
        spec: the same spec.

    Returns:
        features by name (dtype and shape ``[batch, *shape]`` as `signature` says; rows of variable
        length are filled up to the longest of the batch with 0, ``False`` or ``""``), label
        ``[batch]`` or `None`, weight ``[batch]`` or `None`.
    """
    values = {entry.name: _decode_one(parsed[entry.name], entry) for entry in _entries(spec)}
    label = values[spec.label.name] if spec.label else None
    weight = values[spec.weight.name] if spec.weight else None
    return {entry.name: values[entry.name] for entry in spec.features}, label, weight


def _decode_one(value: Any, entry: SpecEntry) -> Any:  # noqa: ANN401  tensorflow has no types
    import tensorflow as tf

    if entry.size is None:
        value = tf.reshape(value.to_tensor(), _padded_shape(value, entry))
    if entry.dtype is DType.BOOL:
        return tf.not_equal(value, 0)
    dtype = tf.as_dtype(entry.info.tensor)
    return value if value.dtype == dtype else tf.cast(value, dtype)


def _padded_shape(ragged: Any, entry: SpecEntry) -> list[Any]:  # noqa: ANN401  as above
    import tensorflow as tf

    inner = 1
    for dim in entry.shape[1:]:
        inner *= dim or 1
    # never -1: a batch whose rows are all empty would leave it undetermined
    longest = tf.reduce_max(tf.concat([ragged.row_lengths(), [0]], axis=0))
    return [ragged.nrows(), longest // inner, *entry.shape[1:]]


def _entries(spec: FeatureSpec) -> list[SpecEntry]:
    return [entry for entry in spec.entries if entry.role in _READ]

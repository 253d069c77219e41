"""From a `FeatureSpec` to what `tf.io` parses and what a model sees.

tensorflow is imported when a function runs; `signature` needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from spark_dl.errors import ManifestError, SchemaError
from spark_dl.schema.spec import Role
from spark_dl.schema.types import DType, ExampleKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spark_dl.schema.spec import FeatureSpec, SpecEntry

__all__ = [
    "ROW_SPLITS",
    "decode",
    "example_features",
    "feature_spec",
    "packed_rows",
    "signature",
]

#: What the connector adds to a column's name where a pack says which values are which row's.
ROW_SPLITS: Final = "/row_splits"

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

    parsers: dict[str, Any] = {}
    for entry in _entries(spec):
        dtype = _listed(entry)
        if entry.size is None:
            parsers[entry.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            parsers[entry.name] = tf.io.FixedLenFeature(entry.shape, dtype)
    return parsers


def feature_spec(path: str) -> dict[str, Any]:
    """Return what `tf.io.parse_single_example` needs to parse the records of a table.

    Args:
        path: folder that the connector wrote; its side-file is read.

    Returns:
        key to parser. Of packed records the first dimension of every tensor is the row; a column
        whose length varies becomes a `tf.RaggedTensor`.

    Raises:
        ManifestError: the folder has no side-file.
        SchemaError: the records are no Examples.

    Example:
        >>> tf.io.parse_single_example(record, feature_spec("/data/rows"))  # doctest: +SKIP
    """
    import tensorflow as tf

    from spark_dl.schema.side_file import SIDE_FILE_NAME, SideFile

    side_file = SideFile.read(path)
    if side_file is None:
        msg = f"{path} has no {SIDE_FILE_NAME}: write the table with the connector, sideFile=true"
        raise ManifestError(msg)
    record_type = side_file.options.get("recordType", "Example")
    if record_type.lower() != "example":
        msg = f"{path} holds records of type {record_type}, expected Example"
        raise SchemaError(msg)
    kinds = {"Int64List": tf.int64, "FloatList": tf.float32, "BytesList": tf.string}
    packed = side_file.rows_per_record > 1
    parsers: dict[str, Any] = {}
    for feature in side_file.features:
        dtype, shape = kinds[feature.list], feature.shape
        if packed and feature.row_splits:
            splits = tf.io.RaggedFeature.RowSplits(feature.row_splits)
            parsers[feature.name] = tf.io.RaggedFeature(
                dtype, value_key=feature.name, partitions=(splits,), row_splits_dtype=tf.int64
            )
        elif packed:
            parsers[feature.name] = tf.io.FixedLenSequenceFeature(
                shape or (), dtype, allow_missing=True
            )
        elif feature.array and shape is None:
            parsers[feature.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            parsers[feature.name] = tf.io.FixedLenFeature(shape or (), dtype)
    return parsers


def packed_rows(records: Any, rows: Any, spec: FeatureSpec) -> dict[str, Any]:  # noqa: ANN401  tensors
    """Parse packed records and take rows out of them.

    Args:
        records: string [packs], Examples of several rows each.
        rows: int32 or int64 [n], numbers of rows, counted over the records.
        spec: spec of the dataset.

    Returns:
        what `tf.io.parse_example` would give for these rows as records of their own.
    """
    import tensorflow as tf

    parsers = {}
    for entry in _entries(spec):
        parsers[entry.name] = tf.io.RaggedFeature(_listed(entry), row_splits_dtype=tf.int64)
        if entry.size is None:
            parsers[entry.name + ROW_SPLITS] = tf.io.RaggedFeature(
                tf.int64, row_splits_dtype=tf.int64
            )
    parsed = tf.io.parse_example(records, parsers)
    taken = {}
    for entry in _entries(spec):
        values = parsed[entry.name].values
        if entry.size is None:
            splits = parsed[entry.name + ROW_SPLITS]
            lengths = (splits[:, 1:] - splits[:, :-1]).values
            values = tf.RaggedTensor.from_row_lengths(values, lengths)
        else:
            values = tf.reshape(values, [-1, *entry.shape])
        taken[entry.name] = tf.gather(values, rows)
    return taken


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


def _listed(entry: SpecEntry) -> Any:  # noqa: ANN401  as above
    """Return the dtype of the list that holds the entry."""
    import tensorflow as tf

    return {
        ExampleKind.INT64: tf.int64,
        ExampleKind.FLOAT: tf.float32,
        ExampleKind.BYTES: tf.string,
    }[entry.info.example]


def _entries(spec: FeatureSpec) -> list[SpecEntry]:
    return [entry for entry in spec.entries if entry.role in _READ]

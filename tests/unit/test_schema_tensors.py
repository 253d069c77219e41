"""What TensorFlow parses is what the spec says."""

from __future__ import annotations

import numpy as np
import pytest

from spark_dl.schema import DTYPES, DType, FeatureSpec, Role, SpecEntry
from spark_dl.schema.tensors import decode, example_features, signature
from spark_dl.schema.types import ExampleKind

tf = pytest.importorskip("tensorflow", reason="reads records as TensorFlow does")


def entry(name, dtype, shape=(), role=Role.FEATURE):
    return SpecEntry(name=name, column=name, dtype=dtype, shape=shape, role=role)


def example(spec, values):
    def feature(kind, value):
        flat = list(np.asarray(value, dtype=object).reshape(-1))
        if kind is ExampleKind.INT64:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=flat))
        if kind is ExampleKind.FLOAT:
            return tf.train.Feature(float_list=tf.train.FloatList(value=flat))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=flat))

    features = {name: feature(spec[name].info.example, value) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def parse(spec, rows):
    serialized = [example(spec, row) for row in rows]
    return decode(tf.io.parse_example(serialized, example_features(spec)), spec)


ONE = {
    ExampleKind.INT64: [0, 1],
    ExampleKind.FLOAT: [0.5, -1.5],
    ExampleKind.BYTES: [b"", b"\xff\x00"],
}


@pytest.mark.parametrize("dtype", DType)
def test_every_type(dtype):
    low, high = ONE[DTYPES[dtype].example]
    spec = FeatureSpec(
        entries=(
            entry("one", dtype),
            entry("fixed", dtype, (2, 1)),
            entry("many", dtype, (None,)),
            entry("blocks", dtype, (None, 2)),
        )
    )
    rows = [
        {"one": low, "fixed": [low, high], "many": [high, high, high], "blocks": []},
        {"one": high, "fixed": [high, low], "many": [], "blocks": [low, high, high, high]},
    ]
    features, label, weight = parse(spec, rows)
    assert (label, weight) == (None, None)
    assert list(features) == ["one", "fixed", "many", "blocks"]
    for name, (tensor, shape) in signature(spec).items():
        assert features[name].dtype == tf.as_dtype(tensor), name
        assert features[name].shape.rank == 1 + len(shape)
    zero = b"" if DTYPES[dtype].example is ExampleKind.BYTES else 0
    expected = {
        "one": [low, high],
        "fixed": [[[low], [high]], [[high], [low]]],
        "many": [[high, high, high], [zero, zero, zero]],
        "blocks": [[[zero, zero], [zero, zero]], [[low, high], [high, high]]],
    }
    for name, values in expected.items():
        assert features[name].numpy().tolist() == values, name


def test_rows_that_are_all_empty():
    spec = FeatureSpec(entries=(entry("x", DType.FLOAT32, (None, 3)),))
    features, _, _ = parse(spec, [{"x": []}, {"x": []}])
    assert features["x"].shape == (2, 0, 3)


def test_label_and_weight_come_apart_and_ids_not_at_all():
    spec = FeatureSpec(
        entries=(
            entry("x", DType.FLOAT32),
            entry("y", DType.BOOL, role=Role.LABEL),
            entry("w", DType.INT16, role=Role.WEIGHT),
            entry("key", DType.STRING, role=Role.ID),
        )
    )
    assert set(example_features(spec)) == {"x", "y", "w"}
    features, label, weight = parse(spec, [{"x": 1.0, "y": 1, "w": 3, "key": b"k"}])
    assert list(features) == ["x"]
    assert label.numpy().tolist() == [True]
    assert (weight.dtype, weight.numpy().tolist()) == (tf.int16, [3])


def test_signature():
    spec = FeatureSpec(
        entries=(
            entry("x", DType.BINARY, (None,)),
            entry("t", DType.TIMESTAMP),
            entry("y", DType.INT32, role=Role.LABEL),
        )
    )
    assert signature(spec) == {"x": ("string", (None,)), "t": ("int64", ())}

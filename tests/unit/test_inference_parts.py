"""Inference without Spark and without TensorFlow: conversions, matching, choosing a model."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import re
import sys
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from spark_dl.errors import (
    ConfigError,
    DataError,
    ModelError,
    SparkDLError,
    StorageError,
    TableError,
)
from spark_dl.inference import apply, default_scoring_id, loading, resolve_model, task_error, udf
from spark_dl.inference.arrow import bad_rows, to_arrow, to_numpy, to_packed
from spark_dl.inference.inputs import (
    PACKABLE,
    BoundInput,
    ModelInput,
    TableColumn,
    bind_inputs,
    remap_inputs,
    spec_inputs,
    usual_batch_size,
)
from spark_dl.inference.labels import Labels, label_output, probabilities
from spark_dl.inference.loading import ModelFile
from spark_dl.inference.matching import check_new_columns
from spark_dl.inference.model import ModelOutput
from spark_dl.inference.packing import packable_inputs, packable_outputs
from spark_dl.inference.predictor import Predictor, ScoringTask
from spark_dl.inference.recut import read_ahead, recut
from spark_dl.inference.resolve import metric_mode
from spark_dl.schema import DTYPES, DType, Feature, FeatureSpec, SpecEntry
from spark_dl.storage import JobState, JobStatus, RunPaths
from spark_dl.storage.checksum import MODEL_FILE, folder_checksum


def entry(dtype="float32", shape=(), **settings):
    return SpecEntry(name="x", column="the x", dtype=dtype, shape=shape, **settings)


def given(dtype="float32", shape=(), **settings):
    """What a column of a dtype of ours is to a task."""
    info = DTYPES[DType(dtype)] if dtype in list(DType) else None
    values = {
        "name": "x",
        "column": "the x",
        "dtype": info.tensor if info else dtype,
        "element": info.spark if info else "",
        "kind": "array" if shape else "scalar",
    }
    return BoundInput(shape=shape, **{**values, **settings})


def columns(**types):
    return {name: TableColumn(type=kind, sql=f"`{name}`") for name, kind in types.items()}


# --- the way into Python ---


def others(number, kind):
    return {f"c{i}": kind for i in range(number)}


@pytest.mark.parametrize(
    ("types", "inputs", "way"),
    [
        ({"id": "bigint", "x": "array<float>"}, [("x", "array")], "map_in_arrow"),
        ({"x": "array<float>", **others(24, "string")}, [("x", "array")], "map_in_arrow"),
        ({"x": "array<float>", **others(25, "int")}, [("x", "array")], "pandas_udf"),
        ({"x": "array<float>", "t": "binary"}, [("x", "array")], "pandas_udf"),
        ({"x": "array<float>", "t": "binary"}, [("x", "array"), ("t", "scalar")], "map_in_arrow"),
        ({"id": "bigint", "x": "float"}, [("x", "scalar")], "pandas_udf"),
        ({"x": "vector"}, [("x", "vector")], "pandas_udf"),
    ],
)
def test_without_arrow_udf_few_columns_cross_together(monkeypatch, types, inputs, way):
    monkeypatch.setattr(udf, "has_arrow_udf", lambda: False)
    bound = [
        given(
            shape=(2,),
            sql=f"`{name}`",
            kind=kind.replace("vector", "array"),
            is_vector=kind == "vector",
        )
        for name, kind in inputs
    ]
    frame = SimpleNamespace(dtypes=list(types.items()))
    assert udf.way_into_python(frame, task(inputs=tuple(bound))) == way
    monkeypatch.setattr(udf, "has_arrow_udf", lambda: True)
    assert udf.way_into_python(frame, task(inputs=tuple(bound))) == "arrow_udf"


# --- models in memory ---


def test_a_worker_keeps_models_and_makes_room_for_new_ones(monkeypatch):
    def load(file):
        return SimpleNamespace(num_bytes=int(file.checksum), path=file.path)

    monkeypatch.setattr(loading, "_load", load)
    cache = loading._Cache(limit_bytes=10)
    a, b, c = (ModelFile(path=name, checksum="4") for name in "abc")
    first = cache.get(a)
    assert cache.get(b) is not first
    assert (cache.get(a) is first, cache.num_loads) == (True, 2)
    cache.get(c)  # 12 bytes: b was used longest ago
    assert (cache.get(a) is first, cache.num_loads) == (True, 3)
    cache.get(b)
    assert cache.num_loads == 4
    changed = ModelFile(path="b", checksum="11")  # alone above the limit: it stays
    assert cache.get(changed) is cache.get(changed)
    assert cache.num_loads == 5


def test_only_a_model_that_is_read_from_afar_travels_with_tokens(monkeypatch):
    monkeypatch.setattr(apply, "delegation_tokens", lambda spark: f"of {spark}".encode())
    near, far = (ModelFile(path=path, checksum="1") for path in ("/runs/m", "hdfs://host/m"))
    assert apply.for_executors(near, "spark").tokens is None
    assert apply.for_executors(far, "spark").tokens == b"of spark"


# --- Arrow to inputs ---


def test_numbers_of_fixed_shape_are_not_copied():
    flat = np.arange(24, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), 6).cast(pa.list_(pa.float32()))
    values = to_numpy(column.slice(1, 2), given(shape=(2, 3)))
    np.testing.assert_array_equal(values, flat[6:18].reshape(2, 2, 3))
    address = column.flatten().buffers()[1].address
    assert values.__array_interface__["data"][0] == address + 6 * 4


@pytest.mark.parametrize(
    ("dtype", "column", "expected"),
    [
        ("bool", pa.array([True, False]), np.array([True, False])),
        ("int8", pa.array([1, -1], pa.int8()), np.array([1, -1], np.int8)),
        ("string", pa.array(["é", ""]), np.array(["é", ""], object)),
        ("binary", pa.array([b"\x00a\x00", b""]), np.array([b"\x00a\x00", b""], object)),
        ("date", pa.array([dt.date(1970, 1, 3)] * 2), np.array([2, 2])),
        (
            "timestamp",
            pa.array([1_000_001, -1], pa.timestamp("us", "UTC")),
            np.array([1_000_001, -1]),
        ),
    ],
)
def test_scalars(dtype, column, expected):
    values = to_numpy(column, given(dtype))
    assert values.dtype == expected.dtype
    assert values.tolist() == expected.tolist()


def test_rows_of_variable_length_are_padded():
    column = pa.array([[1, 2, 3, 4], [], [5, 6]], pa.list_(pa.int32()))
    values = to_numpy(column, given("int32", (None, 2)))
    assert values.tolist() == [[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[5, 6], [0, 0]]]
    words = to_numpy(pa.array([["a"], ["b", "c"]]), given("string", (None,)))
    assert words.tolist() == [["a", ""], ["b", "c"]]


@pytest.mark.parametrize(
    ("column", "shape", "bad"),
    [
        (pa.array([1.0, None], pa.float32()), (), {1: "'the x': null; input 'x'"}),
        (pa.array([[1.0], None], pa.list_(pa.float32())), (1,), {1: "'the x': null;"}),
        (pa.array([[1.0, None]], pa.list_(pa.float32())), (2,), {0: "null inside an array"}),
        (pa.array([[1.0], [1, 2]], pa.list_(pa.float32())), (1,), {1: "2 elements, .* needs 1"}),
        (pa.array([[1.0] * 3], pa.list_(pa.float32())), (None, 2), {0: "a multiple of 2"}),
        (pa.array([[1.0] * 2, []], pa.list_(pa.float32())), (None, 2), {}),
    ],
)
def test_what_no_model_takes_is_named_by_row_and_column(column, shape, bad):
    found = bad_rows(column, given(shape=shape))
    assert found.keys() == bad.keys()
    for row, reason in bad.items():
        assert re.search(reason, found[row])


def test_values_outside_an_unsigned_type_are_bad():
    scalars = pa.array([0, 256, -1, 255, None], pa.int16())
    assert bad_rows(scalars, given("uint8", element="smallint")).keys() == {1, 2, 4}
    lists = pa.array([[1, 2], [3, 999], [0, 255]], pa.list_(pa.int16()))
    assert bad_rows(lists.slice(1), given("uint8", (2,), element="smallint")).keys() == {0}


def test_a_binary_can_hold_the_elements():
    image = given("uint8", (2, 2), element="binary", kind="bytes")
    column = pa.array([b"junk", bytes([1, 2, 3, 4]), bytes([255, 0, 7, 9])], pa.binary()).slice(1)
    assert bad_rows(column, image) == {}
    assert to_numpy(column, image).tolist() == [[[1, 2], [3, 4]], [[255, 0], [7, 9]]]
    assert bad_rows(pa.array([b"12345", None]), image).keys() == {0, 1}


def test_a_null_outside_a_slice_is_no_null_of_it():
    column = pa.array([None, [1.0], [2.0]], pa.list_(pa.float32())).slice(1)
    assert bad_rows(column, given(shape=(1,))) == {}
    assert to_numpy(column, given(shape=(1,))).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("shapes", "rows"),
    [
        ([()], 4096),
        ([(256,)], 4096),
        ([(32, 32, 3)], 341),
        ([(32, 32, 2), (1024,), (None,)], 341),
        ([(224, 224, 3)], 32),
    ],
)
def test_large_rows_go_to_the_model_in_smaller_batches(shapes, rows):
    assert usual_batch_size([given(shape=shape) for shape in shapes]) == rows


PACKED_FLOATS = given(shape=(2,), element="float", kind="packed")


def test_packed_numbers_are_not_copied():
    flat = np.arange(6, dtype=np.float32)
    output = ModelOutput(dtype="float32", shape=(2,))
    column = to_packed(flat.reshape(3, 2), "y", output).slice(1)
    assert bad_rows(column, PACKED_FLOATS) == {}
    values = to_numpy(column, PACKED_FLOATS)
    np.testing.assert_array_equal(values, [[2, 3], [4, 5]])
    assert values.__array_interface__["data"][0] == flat.ctypes.data + 2 * 4


@pytest.mark.parametrize(("element", "stored"), PACKABLE.items())
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64"])
def test_packed_numbers_become_the_model_s(element, stored, dtype):
    column = pa.array([np.array([1, -2], stored).tobytes()])
    values = to_numpy(column, given(dtype, (2, 1), element=element, kind="packed"))
    assert values.dtype == ("float32" if dtype == "bfloat16" else dtype)
    assert values.tolist() == [[[1], [-2]]]


def test_what_could_not_be_packed_is_named_by_row_and_column():
    good, long = np.float32([1, 2]).tobytes(), b"\x02" + (70_000).to_bytes(4, sys.byteorder)
    found = bad_rows(pa.array([good, None, b"\x01", long]), PACKED_FLOATS)
    assert found == {
        1: "column 'the x': null; input 'x' takes none",
        2: "column 'the x': null inside an array",
        3: "column 'the x': 70000 elements, input 'x' of shape (2,) needs 2",
    }
    assert to_numpy(pa.array([], pa.binary()), PACKED_FLOATS).shape == (0, 2)


@pytest.mark.parametrize(
    ("settings", "rows", "expected"),
    [
        ({}, 10_000, True),
        ({"kind": "scalar"}, 10_000, False),
        ({"shape": (None,)}, 10_000, False),
        ({"element": "tinyint"}, 10_000, False),
        ({"element": "string"}, 10_000, False),
        ({"dtype": "uint8", "element": "smallint"}, 10_000, False),
        ({}, 0, False),  # no limit
        ({"shape": (224, 224, 3)}, 3_000, True),
        ({"shape": (224, 224, 3)}, 4_000, False),  # 2.4 GB
    ],
)
def test_arrays_of_one_length_are_packed(settings, rows, expected):
    one = given(**{"shape": (2,), **settings})
    assert packable_inputs([one], rows) == ({"x"} if expected else set())


def test_vectors_of_one_length_are_packed():
    outputs = {
        "vector": ModelOutput(dtype="float16", shape=(3,)),
        "wide": ModelOutput(dtype="float32", shape=(2**20,)),
        "number": ModelOutput(dtype="float32", shape=(1,)),
        "matrix": ModelOutput(dtype="float32", shape=(3, 3)),
        "ragged": ModelOutput(dtype="float32", shape=(None,)),
        "text": ModelOutput(dtype="string", shape=(3,)),
        "flags": ModelOutput(dtype="bool", shape=(3,)),
    }
    assert packable_outputs(outputs, 511) == {"vector", "wide"}
    assert packable_outputs(outputs, 512) == {"vector"}


# --- outputs to Arrow ---


def test_packed_vectors_keep_their_numbers():
    output = ModelOutput(dtype="uint8", shape=(2,))
    column = to_packed(np.uint8([[1, 2], [3, 255]])[:, ::-1], "y", output)
    assert [np.frombuffer(row, "int16").tolist() for row in column.to_pylist()] == [
        [2, 1],
        [255, 3],
    ]
    with pytest.raises(ModelError, match=r"output 'y' has shape \[2, 3\].*\[None, 2\]"):
        to_packed(np.zeros((2, 3), np.uint8), "y", output)


@pytest.mark.parametrize(
    ("values", "dtype", "shape", "expected", "spark_type"),
    [
        (np.float32([[1], [2]]), "float32", (1,), [1.0, 2.0], "float"),
        (np.float64([1, 2]), "float64", (), [1.0, 2.0], "double"),
        (np.float16([1, 2]), "float16", (), [1.0, 2.0], "float"),
        (np.uint8([1, 255]), "uint8", (), [1, 255], "smallint"),
        (np.int64([[1, 2], [3, 4]]), "int64", (2,), [[1, 2], [3, 4]], "array<bigint>"),
        (
            np.arange(12).reshape(2, 3, 2),
            "int64",
            (3, None),
            [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]],
            "array<array<bigint>>",
        ),
        (np.array(["é".encode(), b""], object), "string", (), ["é", ""], "string"),
        (np.array([True, False]), "bool", (), [True, False], "boolean"),
    ],
)
def test_outputs(values, dtype, shape, expected, spark_type):
    output = ModelOutput(dtype=dtype, shape=shape)
    assert to_arrow(values, "y", output).to_pylist() == expected
    assert output.spark_type == spark_type


def test_an_output_of_another_shape_is_refused():
    with pytest.raises(ModelError, match=r"output 'y' has shape \[2, 3\].*\[None, 4\]"):
        to_arrow(np.zeros((2, 3), np.float32), "y", ModelOutput(dtype="float32", shape=(4,)))


def test_an_output_without_a_spark_type_is_refused():
    with pytest.raises(ValueError, match="'complex64' has no Spark type"):
        ModelOutput(dtype="complex64")


# --- batches ---


def task(batch_size=4, **settings):
    values = {
        "file": ModelFile(path="", checksum=""),
        "inputs": (given(),),
        "outputs": {"y": ModelOutput(dtype="float32")},
        "fields": {"y": "output_0"},
        "batch_size": batch_size,
    }
    return ScoringTask(**{**values, **settings})


@pytest.mark.parametrize("sizes", [[], [0], [1], [4], [5], [9], [3, 3, 3], [1, 0, 9, 2]])
def test_batches_are_cut_anew_across_their_borders(sizes):
    seen = []

    def double(inputs):
        seen.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2}

    rows = sum(sizes)
    values = iter(range(rows))
    batches = [[pa.array([next(values) for _ in range(size)], pa.float32())] for size in sizes]
    out = list(Predictor(double, task()).stream(batches))
    assert [row["output_0"] for part in out for row in part.to_pylist()] == [
        2.0 * i for i in range(rows)
    ]
    assert seen == [4] * (rows // 4) + [rows % 4] * (rows % 4 > 0)


def test_the_next_batch_is_fetched_while_the_model_computes():
    fetched = [threading.Event() for _ in range(3)]

    def source():
        for number, event in enumerate(fetched):
            yield [pa.array([number] * 4, pa.float32())]
            event.set()  # somebody has asked for the one after it

    def model(inputs):
        assert fetched[int(inputs["x"][0])].wait(60), "nobody reads ahead"
        return {"y": inputs["x"]}

    out = list(Predictor(model, task()).stream(source()))
    assert [row["output_0"] for part in out for row in part.to_pylist()] == [0] * 4 + [1] * 4 + [
        2
    ] * 4


def test_a_huge_partition_is_never_in_memory_whole():
    made = []
    most = 0

    def source():
        for number in range(500):
            values = np.full(10, number, np.float32)
            made.append(weakref.ref(values))
            column = pa.array(values)  # holds the numpy array's own memory
            del values
            yield [column]

    for _ in Predictor(lambda inputs: {"y": inputs["x"]}, task(batch_size=25)).stream(source()):
        most = max(most, sum(values() is not None for values in made))
    # at work, read ahead, and what lies across the borders of both
    assert 0 < most <= 12


def test_what_a_source_raises_comes_where_its_item_would():
    def source():
        yield 1
        msg = "no more"
        raise OSError(msg)

    items = read_ahead(source())
    assert next(items) == 1
    with pytest.raises(OSError, match="no more"):
        next(items)


def test_reading_ahead_ends_with_its_reader():
    items = read_ahead(itertools.count())
    assert [next(items), next(items)] == [0, 1]
    (thread,) = (t for t in threading.enumerate() if t.name == "spark-dl-read-ahead")
    items.close()
    thread.join(60)
    assert not thread.is_alive()


def test_what_lies_within_a_batch_is_not_copied():
    column = pa.array(range(10), pa.int64())
    first, second, third = recut([[column]], 4)
    address = column.buffers()[1].address
    for part, offset in ((first, 0), (second, 4), (third, 8)):
        assert part[0].buffers()[1].address == address
        assert part[0].offset == offset


@pytest.mark.parametrize("on_error", ["null", "quarantine"])
def test_a_bad_row_fails_no_neighbour(on_error):
    def picky(inputs):
        if (inputs["x"] > 90).any():
            message = "over 90"
            raise DataError(message)
        return {"y": inputs["x"] * 2}

    column = pa.array([1, None, 95, 3, 4, 5, 99], pa.float32())
    predictor = Predictor(picky, task(batch_size=7, on_error=on_error))
    (out,) = predictor.stream([[column]])
    assert [row["output_0"] for row in out.to_pylist()] == [2, None, None, 6, 8, 10, None]
    reasons = [row["error"] for row in out.to_pylist()]
    assert [reason and reason[:12] for reason in reasons] == [
        None,
        "column 'the ",
        "over 90",
        None,
        None,
        None,
        "over 90",
    ]
    (none,) = predictor.stream([[column.slice(1, 1)]])
    assert none.to_pylist()[0]["output_0"] is None


def test_a_bad_row_ends_the_job_by_default():
    predictor = Predictor(lambda inputs: {"y": inputs["x"]}, task())
    with pytest.raises(DataError, match=r"'the x': null.*\(1 of 2 rows.*set on_error"):
        predictor.predict([pa.array([1, None], pa.float32())])


# --- labels ---


def test_classes_become_labels_with_probabilities():
    labels = Labels(
        output="y", vocabulary=("ant", "bee", "cat"), from_logits=False, fields=("label", "p")
    )
    names, certain = labels.columns(np.float32([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]]))
    assert names.to_pylist() == ["bee", "ant"]
    np.testing.assert_allclose(certain.to_numpy(), [0.7, 0.5])


def test_probabilities_out_of_logits():
    three = probabilities(np.float32([[0, math.log(2), 0]]), from_logits=True)
    np.testing.assert_allclose(three, [[0.25, 0.5, 0.25]], rtol=1e-6)
    two = probabilities(np.float32([[math.log(3)], [0]]), from_logits=True)
    np.testing.assert_allclose(two, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)
    assert probabilities(np.empty((0, 3), np.float32), from_logits=True).shape == (0, 3)


def test_the_output_that_tells_the_classes_apart():
    heads = {
        "kind": ModelOutput(dtype="float32", shape=(3,)),
        "size": ModelOutput(dtype="float32", shape=(1,)),
        "code": ModelOutput(dtype="int64", shape=(3,)),
    }
    assert label_output(heads, 3) == "kind"
    assert label_output(heads, 2) == "size"
    assert label_output(heads, 4) is None
    assert label_output({**heads, "other": heads["kind"]}, 3) is None


# --- matching ---


def bound(entries, table):
    return {one.name: one for one in bind_inputs(spec_inputs(entries), table, model="m")}


def test_columns_that_fit():
    spec = (
        SpecEntry(name="a", column="a", dtype="float32", source_type="decimal(9,2)"),
        SpecEntry(name="b", column="b", dtype="int64", shape=(None,)),
        SpecEntry(name="c", column="c", dtype="float32"),
        SpecEntry(name="v", column="v", dtype="float32", shape=(3,)),
        SpecEntry(name="d", column="d.e", dtype="date"),
    )
    table = columns(a="decimal(9,2)", b="array<smallint>", c="double", v="vector")
    table["d.e"] = TableColumn(type="date", sql="`d`.`e`")
    found = bound(spec, table)
    assert found["a"].sql == "try_cast(`a` AS float)"
    assert found["b"].sql == "try_cast(`b` AS array<bigint>)"
    assert found["c"].sql == "try_cast(`c` AS float)"
    assert found["v"].is_vector
    assert (found["d"].sql, found["d"].element, found["d"].dtype) == ("`d`.`e`", "date", "int64")


@pytest.mark.parametrize("kind", ["string", "decimal(9,3)", "array<float>", "bigint"])
def test_columns_that_do_not_fit(kind):
    fits = entry(source_type="decimal(9,2)")
    with pytest.raises(ModelError, match="expected float"):
        bound([fits], {"the x": TableColumn(type=kind, sql="x")})


def test_a_dataset_s_own_table_has_the_inputs_names():
    assert bound([entry()], columns(x="float", y="float"))["x"].column == "x"
    both = {**columns(x="float"), "the x": TableColumn(type="float", sql="`the x`")}
    assert bound([entry()], both)["x"].column == "the x"
    with pytest.raises(ModelError, match="column 'the x' is missing"):
        bound([entry()], columns(y="float"))


def takes(dtype, shape=(), name="x"):
    return ModelInput(name=name, dtype=dtype, shape=shape, columns=(name,))


@pytest.mark.parametrize(
    ("wanted", "kind", "sql", "element"),
    [
        (takes("float64"), "double", "`x`", "double"),
        (takes("float16"), "float", "`x`", "float"),
        (takes("int32"), "bigint", "try_cast(`x` AS int)", "int"),
        (takes("int64"), "timestamp", "`x`", "timestamp"),
        (takes("string"), "binary", "`x`", "binary"),
        (takes("string"), "string", "`x`", "string"),
        (takes("float32", (1,)), "double", "try_cast(`x` AS float)", "float"),
        (takes("uint8", (2, 2)), "binary", "`x`", "binary"),
        (takes("uint8", (2, 2)), "array<int>", "try_cast(`x` AS array<smallint>)", "smallint"),
        (takes("float64", (3,)), "vector", "`x`", "double"),
    ],
)
def test_inputs_of_a_signature(wanted, kind, sql, element):
    (found,) = bind_inputs([wanted], columns(x=kind), model="m")
    assert (found.sql, found.element) == (sql, element)


@pytest.mark.parametrize(
    ("wanted", "kind", "reason"),
    [
        (takes("float32", (3,)), "float", r"expected array<float>"),
        (takes("float32"), "array<float>", r"expected float"),
        (takes("float32", (2, 2)), "array<array<float>>", r"expected array<float>"),
        (takes("int64", (3,)), "vector", "only a float vector fits"),
        (takes("float32", (2, 2)), "vector", "only a float vector fits"),
        (takes("bool"), "int", "expected boolean"),
    ],
)
def test_columns_that_no_signature_takes(wanted, kind, reason):
    with pytest.raises(ModelError, match=reason):
        bind_inputs([wanted], columns(x=kind), model="m")


def test_inputs_are_mapped_to_columns():
    inputs = (takes("float32", (2,)), takes("int32", name="n"))
    table = columns(a="double", b="int", c="decimal(9,2)")
    mapping = {"x": ["a", "a"], "n": Feature("c", cast="int")}
    both = bind_inputs(remap_inputs(inputs, mapping, model="m"), table, model="m")
    assert both[0].sql == "array(try_cast(`a` AS float), try_cast(`a` AS float))"
    assert both[1].sql == "try_cast(`c` AS int)"
    (alone,) = remap_inputs(inputs[1:], "b", model="m")
    assert alone.columns == ("b",)


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ("a", "has the inputs x, n: give a mapping"),
        ({"m": "a"}, r"no input 'm'.*\(inputs: x, n\)"),
        ({"x": Feature("a", shape=(3,))}, r"'x' has shape \(2,\), not \(3,\)"),
        ({"n": Feature("a", cast="integer")}, "cannot cast to 'integer'; did you mean"),
    ],
)
def test_mappings_that_the_model_contradicts(mapping, reason):
    inputs = (takes("float32", (2,)), takes("int32", name="n"))
    with pytest.raises(ModelError, match=reason):
        remap_inputs(inputs, mapping, model="m")


def test_all_columns_that_do_not_fit_are_listed():
    inputs = remap_inputs(
        (takes("float32", (2,)), takes("int32", name="n")), {"x": ["a", "b", "a"]}, model="m"
    )
    with pytest.raises(ModelError) as caught:
        bind_inputs(inputs, columns(a="double", b="string", m="int"), model="m")
    assert "cannot be made of 3 columns" in str(caught.value)
    assert "column 'n' is missing" in str(caught.value)


def test_taken_names_are_compared_without_case():
    check_new_columns(["prediction"], ["predictions"])
    with pytest.raises(ModelError, match="columns prediction already"):
        check_new_columns(["prediction"], ["Prediction"])


# --- which model ---


def _run(runs, name, *, ended, status=JobState.SUCCEEDED, versions=(1,), **metrics):
    paths = RunPaths(runs=str(runs), run_id=name)
    JobStatus(job="train", id=name, status=status, ended=ended, metrics=metrics).write(paths.status)
    for version in versions:
        _model(runs / name / "model" / str(version), name, version)


def _model(folder, run_id, version):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(f"{run_id} {version}".encode())
    (folder / "feature_spec.json").write_text(FeatureSpec(entries=(entry(),)).to_json())
    facts = {
        "run_id": run_id,
        "version": version,
        "checksum": folder_checksum(str(folder)),
        "outputs": {"y": {"dtype": "float32", "shape": [1]}},
        "versions": {"keras": "3"},
    }
    (folder / MODEL_FILE).write_text(json.dumps(facts))


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    _run(folder, "b-first", ended="2026-01-01", versions=(1, 2, 10), val_loss=0.1, auc=0.7)
    _run(folder, "a-second", ended="2026-01-02", val_loss=0.3, auc=0.9)
    _run(folder, "failed", ended="2026-01-03", status=JobState.FAILED, versions=(), val_loss=0.0)
    (folder / "notes.txt").write_text("no run")
    (folder / "prepare-1").mkdir()
    return folder


@pytest.mark.parametrize(
    ("model", "metric", "run_id", "version"),
    [
        ("latest", None, "a-second", 1),
        ("best", "val_loss", "b-first", 10),
        ("best", "auc", "a-second", 1),
        ("b-first", None, "b-first", 10),
    ],
)
def test_models_are_found(runs, model, metric, run_id, version):
    ref = resolve_model(model, runs=runs, metric=metric)
    assert (ref.run_id, ref.version) == (run_id, version)
    assert ref.path == str(runs / run_id / "model" / str(version))
    assert ref.checksum == folder_checksum(ref.path)


def test_a_run_that_diverged_is_never_the_best_but_may_be_the_latest(runs):
    _run(runs, "diverged", ended="2026-02-01", val_loss=math.nan, auc=math.inf, loss=math.nan)
    assert resolve_model("latest", runs=runs).run_id == "diverged"
    assert resolve_model("best", runs=runs, metric="val_loss").run_id == "b-first"
    assert resolve_model("best", runs=runs, metric="auc").run_id == "a-second"
    with pytest.raises(ModelError, match="'loss' is finite in no run"):
        resolve_model("best", runs=runs, metric="loss")


def test_a_path_is_taken_as_it_is(runs):
    assert resolve_model(runs / "b-first" / "model" / "2", runs=runs).version == 2


@pytest.mark.parametrize(
    ("model", "metric", "error", "message"),
    [
        ("best", None, ConfigError, "Set `infer.metric`"),
        ("best", "val_los", ModelError, "no run has the metric 'val_los'; did you mean 'val_loss'"),
        ("b-frist", None, ModelError, "no such run in .*did you mean 'b-first'"),
        ("failed", None, ModelError, "has exported no model yet"),
        ("/no/where", None, ModelError, "there is no such folder"),
        ("nope://bucket/model", None, StorageError, "no working client for nope://"),
    ],
)
def test_models_that_are_not_there(runs, model, metric, error, message):
    with pytest.raises(error, match=message):
        resolve_model(model, runs=runs, metric=metric)


def test_without_a_succeeded_run_there_is_no_latest(tmp_path):
    with pytest.raises(ModelError, match=r"no training run in .* has succeeded"):
        resolve_model("latest", runs=tmp_path)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val_loss", "min"), ("mean_absolute_error", "min"), ("accuracy", "max"), ("val_auc", "max")],
)
def test_the_better_side_of_a_metric(metric, mode):
    assert metric_mode(metric) == mode


# --- scoring ids, checksums, errors of tasks ---


def test_a_scoring_id_depends_on_every_fact():
    facts = {"table": "/t", "version": 3, "where": None, "output": "/o"}
    first = default_scoring_id("sha256:0", **facts)
    assert first == default_scoring_id("sha256:0", **facts)
    others = [
        default_scoring_id("sha256:1", **facts),
        *(
            default_scoring_id("sha256:0", **{**facts, key: value})
            for key, value in (("table", "/u"), ("version", 4), ("where", "x"), ("output", "/p"))
        ),
    ]
    assert len({first, *others}) == 6


def test_a_checksum_is_of_names_and_contents(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "variables" / "data").write_bytes(b"1")
        (tmp_path / name / "graph").write_bytes(b"2")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert folder_checksum(one) == folder_checksum(two)
    (tmp_path / "two" / MODEL_FILE).write_text("{}")
    assert folder_checksum(one) == folder_checksum(two)
    (tmp_path / "two" / "variables" / "data").write_bytes(b"3")
    assert folder_checksum(one) != folder_checksum(two)
    (tmp_path / "two" / "variables" / "data").write_bytes(b"1")
    (tmp_path / "two" / "graph").rename(tmp_path / "two" / "Graph")
    assert folder_checksum(one) != folder_checksum(two)
    with pytest.raises(StorageError, match="no such folder"):
        folder_checksum(str(tmp_path / "three"))


def test_the_error_of_a_task_is_found_in_spark_s():
    text = (
        "Job aborted.\nTraceback (most recent call last):\n  File x, line 1\n"
        "spark_dl.errors.DataError: column 'a': null\nsecond line\n\n\tat org.apache.spark.X\n"
    )
    found = task_error(RuntimeError(text))
    assert isinstance(found, DataError)
    assert str(found) == "column 'a': null\nsecond line"
    wrapped = TableError("cannot be written")
    wrapped.__cause__ = RuntimeError(text)
    assert isinstance(task_error(wrapped), DataError)
    assert task_error(RuntimeError("ValueError: no")) is None
    assert task_error(RuntimeError("spark_dl.errors.dataclass: no")) is None
    assert issubclass(DataError, SparkDLError)

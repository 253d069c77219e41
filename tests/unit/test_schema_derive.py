"""From a table's schema to a spec; pyspark's types need no JVM."""

from __future__ import annotations

import logging

import pytest
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import StructField, StructType

from spark_dl.errors import SchemaError
from spark_dl.schema import DTYPES, DType, Feature, FeatureSpec, Role
from spark_dl.schema.derive import LOSSLESS, derive_spec, read_schema


def schema(ddl):
    fields = []
    for part in ddl.split(";"):
        name, kind = part.split(" ", 1)
        # the parser of DDL is Spark's own, in the JVM
        fields.append(StructField(name, parse(kind)))
    return StructType(fields)


def parse(kind):
    from pyspark.sql import types as t

    if kind.startswith("array<"):
        return t.ArrayType(parse(kind.removeprefix("array<").removesuffix(">")))
    special = {
        "decimal": t.DecimalType(10, 2),
        "map": t.MapType(t.StringType(), t.IntegerType()),
        "struct": StructType([StructField("a", t.IntegerType())]),
        "vector": VectorUDT(),
        "double": t.DoubleType(),
        "timestamp_ntz": t.TimestampNTZType(),
        "void": t.NullType(),
        "boolean": t.BooleanType(),
        "tinyint": t.ByteType(),
        "smallint": t.ShortType(),
        "int": t.IntegerType(),
        "bigint": t.LongType(),
        "float": t.FloatType(),
        "string": t.StringType(),
        "binary": t.BinaryType(),
        "date": t.DateType(),
        "timestamp": t.TimestampType(),
    }
    return special[kind]


@pytest.mark.parametrize("dtype", DType)
def test_every_type_of_the_table_is_kept(dtype):
    kind = DTYPES[dtype].spark
    spec = derive_spec(schema(f"one {kind};many array<{kind}>"), features=["one", "many"])
    one, many = spec.entries
    assert (one.dtype, one.shape, one.derived, one.source_type) == (dtype, (), "as is", kind)
    assert (many.dtype, many.shape, many.derived) == (dtype, (None,), "as is")
    assert read_schema(spec.entries) == StructType(
        [StructField("one", parse(kind)), StructField("many", type_of_array(kind))]
    )


def type_of_array(kind):
    array = parse(f"array<{kind}>")
    array.containsNull = False
    return array


def test_double_becomes_float_and_is_said_once(caplog):
    with caplog.at_level(logging.INFO, logger="spark_dl"):
        spec = derive_spec(
            schema("a double;b array<double>;y int"),
            features={"x": "a", "z": Feature("b", shape=(3,), dtype="float32")},
            label="y",
        )
    assert [e.derived for e in spec.features] == ["cast double to float"] * 2
    assert [e.dtype for e in spec.features] == [DType.FLOAT32] * 2
    assert [record.message for record in caplog.records] == [
        "TFRecord holds no double: cast to float (32 bit): a, b"
    ]


def test_names_roles_and_order():
    spec = derive_spec(
        schema("key bigint;a int;b float;w float;y int;day date"),
        features={"second": "b", "first": Feature("a", dtype="int64")},
        label="y",
        weight="w",
        id=["key", "day"],
    )
    assert [(e.name, e.column, e.role) for e in spec.entries] == [
        ("second", "b", Role.FEATURE),
        ("first", "a", Role.FEATURE),
        ("y", "y", Role.LABEL),
        ("w", "w", Role.WEIGHT),
        ("key", "key", Role.ID),
        ("day", "day", Role.ID),
    ]


@pytest.mark.parametrize("source", DType)
@pytest.mark.parametrize("wanted", DType)
def test_dtype_loses_nothing_or_is_refused(source, wanted):
    table = schema(f"x {DTYPES[source].spark}")
    if wanted is source or wanted in LOSSLESS.get(source, ()):
        (entry,) = derive_spec(table, features=[Feature("x", dtype=wanted)]).entries
        assert entry.dtype is wanted
        return
    message = rf"'x' of type {DTYPES[source].spark}: dtype {wanted} .*cast='{DTYPES[wanted].spark}'"
    with pytest.raises(SchemaError, match=message):
        derive_spec(table, features=[Feature("x", dtype=wanted)])


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("decimal", "accept the loss with Feature"),
        ("map", "take its values out"),
        ("struct", "select its fields"),
        ("vector", "vector_to_array"),
        ("array<array<int>>", "nested arrays .* flatten"),
        ("array<decimal>", "accept the loss with Feature"),
        ("timestamp_ntz", "cast='timestamp'"),
        ("void", "nothing but null"),
    ],
)
def test_types_that_are_refused_by_name(kind, hint):
    with pytest.raises(SchemaError, match=f"feature column 'odd' of type .*{hint}"):
        derive_spec(schema(f"odd {kind};y int"), features=["odd"], label="y")


@pytest.mark.parametrize("kind", ["map", "struct", "vector", "array<array<int>>"])
def test_a_cast_does_not_help_what_has_no_values_of_its_own(kind):
    with pytest.raises(SchemaError, match="column 'odd'"):
        derive_spec(schema(f"odd {kind}"), features=[Feature("odd", cast="float")])


@pytest.mark.parametrize(
    ("kind", "cast", "dtype", "derived"),
    [
        ("decimal", "float", DType.FLOAT32, "cast decimal(10,2) to float"),
        ("array<bigint>", "int", DType.INT32, "cast bigint to int"),
        ("string", "LONG", DType.INT64, "cast string to bigint"),
        ("double", "float32", DType.FLOAT32, "cast double to float"),
        ("double", "int", DType.INT32, "cast double to int"),
        ("timestamp_ntz", "timestamp", DType.TIMESTAMP, "cast timestamp_ntz to timestamp"),
    ],
)
def test_explicit_casts(kind, cast, dtype, derived):
    (entry,) = derive_spec(schema(f"x {kind}"), features=[Feature("x", cast=cast)]).entries
    assert (entry.dtype, entry.derived) == (dtype, derived)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (Feature("x", cast="double"), "TFRecord holds no double, use 'float'"),
        (Feature("x", cast="flaot"), "did you mean 'float'"),
        (Feature("x", cast="int", dtype="float32"), "cast='int' gives int32, but dtype='float32'"),
    ],
)
def test_casts_that_are_refused(feature, message):
    with pytest.raises(SchemaError, match=message):
        derive_spec(schema("x string"), features=[feature])


@pytest.mark.parametrize("shape", [(3,), (2, 2), (None,), (None, 4), (1,)])
def test_shapes_of_arrays(shape):
    (entry,) = derive_spec(schema("x array<int>"), features=[Feature("x", shape=shape)]).entries
    assert entry.shape == shape


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("int", (1,), "is a scalar, its shape is"),
        ("array<int>", (), r"shape \(\) is for scalars"),
        ("array<int>", (3, None), "only the first dimension may be None"),
        ("array<int>", (0,), "expected positive numbers"),
        ("array<int>", (None, -1), "expected positive numbers"),
    ],
)
def test_shapes_that_are_refused(kind, shape, message):
    with pytest.raises(SchemaError, match=f"column 'x'.*{message}"):
        derive_spec(schema(f"x {kind}"), features=[Feature("x", shape=shape)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": ["a", "y"], "label": "y"}, "column 'y' is used as feature and label"),
        ({"features": ["a"], "weight": "a"}, "column 'a' is used as feature and weight"),
        ({"features": ["a"], "label": "y", "id": "y"}, "column 'y' is used as label and id"),
        ({"features": ["a", "a"]}, "names used twice: 'a'"),
        ({"features": {"A": "a", "a": "b"}}, "names used twice: 'A', 'a'"),
        ({"features": {"y": "a"}, "label": "y"}, "names used twice: 'y'"),
        ({"features": []}, "no features"),
        ({"features": "a"}, r"write \['a'\]"),
        ({"features": ["c"]}, "feature column 'c' is not in the table"),
        ({"features": ["a"], "label": "z"}, "label column 'z' is not in the table"),
        ({"features": ["a"], "weight": "z"}, "weight column 'z' is not in the table"),
        ({"features": ["a"], "id": "z"}, "id column 'z' is not in the table"),
        ({"features": ["a"], "weight": "s"}, "weight column 's': got string, expected a number"),
        (
            {"features": ["a"], "label": "v"},
            "label column 'v': got array<int>, expected one number",
        ),
        ({"features": ["a"], "label": "d"}, "label column 'd': got date, expected a number"),
        ({"features": ["a"], "id": "v"}, "id column 'v': got array<int>"),
    ],
)
def test_columns_that_do_not_fit(settings, message):
    table = schema("a int;b int;y int;s string;v array<int>;d date")
    with pytest.raises(SchemaError, match=message):
        derive_spec(table, **settings)


def test_a_column_that_the_table_has_twice():
    with pytest.raises(SchemaError, match="'a' is in the table 2 times"):
        derive_spec(schema("a int;a float"), features=["a"])


def test_one_column_may_serve_two_inputs():
    spec = derive_spec(schema("a int"), features={"x": "a", "z": Feature("a", dtype="int64")})
    assert [e.column for e in spec.entries] == ["a", "a"]


def test_a_label_that_is_text_becomes_a_class():
    spec = derive_spec(schema("a int;kind string"), features=["a"], label="kind")
    assert (spec.label.dtype, spec.label.derived) == ("int64", "place in the vocabulary")
    assert '"vocabulary"' not in spec.to_json()
    entries = (spec["a"], spec.label.model_copy(update={"vocabulary": ("ant", "bee")}))
    known = FeatureSpec(entries=entries)
    assert FeatureSpec.from_json(known.to_json()).label.vocabulary == ("ant", "bee")

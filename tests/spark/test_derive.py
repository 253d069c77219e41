"""Specs from real tables, and the columns that are made by them."""

from __future__ import annotations

import logging
from decimal import Decimal

import pytest
from chispa import assert_df_equality
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vectors

from spark_dl.errors import SchemaError
from spark_dl.schema import DType, Feature
from spark_dl.schema.derive import LOSSLESS, derive_spec, read_schema, select_columns
from spark_dl.schema.types import DTYPES
from spark_dl.shards.prepare import write_dataset

pytestmark = [
    pytest.mark.spark,
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def made(df, **settings):
    spec = derive_spec(df.schema, **settings)
    return spec, df.select(*select_columns(spec.entries))


def test_the_columns_are_what_the_spec_says(spark):
    df = spark.createDataFrame(
        [(1.5, [0.5, 2.0], Decimal("2.25"), True, "7", b"x", 3)],
        "a double, b array<double>, c decimal(10,2), d boolean, e string, f binary, y tinyint",
    )
    spec, rows = made(
        df,
        features={
            "a": "a",
            "b": Feature("b", shape=(2, 1)),
            "c": Feature("c", cast="float"),
            "d": Feature("d", dtype="float32"),
            "e": Feature("e", cast="int"),
            "f": "f",
        },
        label="y",
    )
    assert [(field.name, field.dataType.simpleString()) for field in rows.schema] == [
        ("a", "float"),
        ("b", "array<float>"),
        ("c", "float"),
        ("d", "float"),
        ("e", "int"),
        ("f", "binary"),
        ("y", "tinyint"),
    ]
    (row,) = rows.collect()
    assert tuple(row) == (1.5, [0.5, 2.0], 2.25, 1.0, 7, b"x", 3)
    expected = spark.createDataFrame([tuple(row)], read_schema(spec.entries))
    assert_df_equality(rows, expected, ignore_nullable=True)


@pytest.mark.parametrize("source", LOSSLESS)
def test_changes_of_dtype_keep_every_value(spark, source):
    ends = {
        DType.BOOL: [True, False],
        DType.INT8: [-(2**7), 2**7 - 1],
        DType.INT16: [-(2**15), 2**15 - 1],
        DType.INT32: [-(2**31), 2**31 - 1],
        DType.STRING: ["", "ä"],
    }[source]
    df = spark.createDataFrame([(value,) for value in ends], f"x {DTYPES[source].spark}")
    for wanted in LOSSLESS[source]:
        _, rows = made(df, features=[Feature("x", dtype=wanted)])
        back = rows.select(rows.x.cast(DTYPES[source].spark).alias("x"))
        assert_df_equality(back, df, ignore_nullable=True)


def test_names_that_sql_would_take_for_something_else(spark, tmp_path):
    names = ["a.b", "c`d", "e f", "select", "split", "key", "order", "the split"]
    df = spark.createDataFrame([tuple(range(n, n + 8)) for n in range(20)], names)
    dataset = write_dataset(df, features=names, path=str(tmp_path), splits={"all": 1.0}, seed=0)
    table = dataset.table("all")
    assert table.columns == names
    # chispa sorts by names that it does not quote
    plain = list("abcdefgh")
    assert_df_equality(
        table.toDF(*plain), df.toDF(*plain), ignore_row_order=True, ignore_nullable=True
    )


def test_a_text_that_is_no_number_becomes_null(spark):
    df = spark.createDataFrame([("1",), ("one",)], "x string")
    _, rows = made(df, features=[Feature("x", cast="int")])
    assert [row["x"] for row in rows.collect()] == [1, None]


def test_vectors_are_refused_and_their_arrays_are_not(spark):
    df = spark.createDataFrame([(Vectors.dense([1.0, 2.0]),)], ["v"])
    with pytest.raises(SchemaError, match=r"column 'v' of type vector .*vector_to_array"):
        made(df, features=["v"])
    _, rows = made(df.select(vector_to_array("v").alias("v")), features=["v"])
    assert rows.collect()[0]["v"] == [1.0, 2.0]


def test_nested_columns_are_refused(spark):
    df = spark.sql("SELECT array(array(1)) AS a, named_struct('x', 1) AS b, map('k', 1) AS c")
    for name in "abc":
        with pytest.raises(SchemaError, match=f"column {name!r} of type"):
            made(df, features=[name])


def test_only_what_was_not_asked_for_is_said(spark, caplog):
    df = spark.sql("SELECT 1.5d AS a, 2.5d AS b, 1 AS c")
    with caplog.at_level(logging.INFO, logger="spark_dl"):
        made(df, features=["a", Feature("b", cast="int"), "c"])
    assert [record.message for record in caplog.records] == [
        "TFRecord holds no double: cast to float (32 bit): a"
    ]

"""The TFRecord connector through Spark: identity, TensorFlow beside it, refusals, damage."""

from __future__ import annotations

import shutil
import struct
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.errors import IllegalArgumentException
from pyspark.sql import functions as sf

from spark_dl.schema.tensors import feature_spec
from spark_dl.shards.tfrecord import read_tfrecord, write_tfrecord
from spark_dl.testing import encode_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import DataFrame, Row, SparkSession
    from pyspark.sql.types import StructType

pytestmark = pytest.mark.spark

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_SCHEMA = (
    "a_boolean boolean, b_tinyint tinyint, c_smallint smallint, d_int int, e_bigint bigint, "
    "f_date date, g_timestamp timestamp, h_timestamp_ntz timestamp_ntz, i_float float, "
    "j_string string, k_binary binary, l_bigints array<bigint>, m_floats array<float>, "
    "n_strings array<string>, o_booleans array<boolean>"
)


def as_float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a timestamp without time zone
MICROSECONDS = st.integers(-(10**15), 4 * 10**15)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "tinyint": integers(8),
    "smallint": integers(16),
    "int": integers(32),
    "bigint": integers(64),
    "date": st.dates(date(1, 1, 1), date(9999, 12, 31)),
    "timestamp": MICROSECONDS,  # as int64: Python's timestamps depend on the time zone
    "timestamp_ntz": MICROSECONDS.map(lambda us: EPOCH + timedelta(microseconds=us)),
    "float": st.floats(width=32),
    "string": st.text(max_size=40),
    "binary": st.binary(max_size=200),
}
TYPES = SCALARS | {
    f"array<{name}>": st.lists(values, max_size=12) for name, values in SCALARS.items()
}
SCHEMA = ", ".join(f"c{i} {name}" for i, name in enumerate(TYPES))
INPUT_SCHEMA = SCHEMA.replace(" timestamp,", " bigint,").replace("<timestamp>", "<bigint>")


def with_timestamps(df: DataFrame) -> DataFrame:
    for i, name in enumerate(TYPES):
        if name == "timestamp":
            df = df.withColumn(f"c{i}", sf.timestamp_micros(f"c{i}"))
        elif name == "array<timestamp>":
            df = df.withColumn(f"c{i}", sf.transform(f"c{i}", sf.timestamp_micros))
    return df


def bits(value: Any) -> Any:
    """`value` so that floats compare by their bits: -0.0 is not 0.0, a NaN is a NaN."""
    if isinstance(value, float):
        return struct.pack("<d", value) if value == value else "NaN"  # noqa: PLR0124
    if isinstance(value, list):
        return [bits(item) for item in value]
    return value


def rows(df: DataFrame) -> list[tuple[Any, ...]]:
    return sorted(
        (tuple(bits(value) for value in row) for row in df.collect()), key=lambda row: row[-1]
    )


def write(df: DataFrame, path: Path, **options: str) -> list[Path]:
    """Write `df` and return its files."""
    df.write.format("tfrecord").mode("overwrite").options(**options).save(str(path))
    return sorted(path.glob("*.tfrecord"))


def read(spark: SparkSession, schema: str | StructType, path: Path) -> DataFrame:
    return spark.read.schema(schema).format("tfrecord").load(str(path))


@pytest.fixture(scope="module")
def ten_records_once(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that is only read."""
    folder = tmp_path_factory.mktemp("ten") / "ten"
    write(spark.range(0, 10, 1, 1).select("id", sf.lit("abc").alias("text")), folder)
    return folder


def failure(action: Callable[[], object]) -> str:
    """What Python is told when a Spark job fails."""
    with pytest.raises(Exception, match=r"io\.sparkdl\.tfrecord\.TFRecordException: ") as caught:
        action()
    return str(caught.value)


few_examples = settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
rows_in_records = st.sampled_from([1, 2, 7])


@few_examples
@given(table=st.lists(st.tuples(*TYPES.values()), max_size=25), rows_per_record=rows_in_records)
def test_table_to_tfrecords_to_table_is_the_identity(
    spark: SparkSession, tmp_path: Path, table: list[tuple[Any, ...]], rows_per_record: int
) -> None:
    numbered = [(*values, i) for i, values in enumerate(table)]
    original = with_timestamps(spark.createDataFrame(numbered, f"{INPUT_SCHEMA}, id int"))
    write(original, tmp_path / "table", rowsPerRecord=str(rows_per_record))
    back = read(spark, original.schema, tmp_path / "table")
    assert rows(back) == rows(original)


def oracle_values(name: str, values: list[Any]) -> Any:
    """The feature of a column's values in a row."""
    if "binary" in name:
        return list(values)
    return np.array(values, np.float32 if "float" in name else np.int64)


def oracle_record(names: Sequence[str], pack: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """The features of one record, by the numpy oracle: arrays of a pack tell where rows begin."""
    features = {}
    for i, name in enumerate(names):
        values = [row[i] for row in pack]
        if name.startswith("array"):
            features[f"c{i}"] = oracle_values(name, [item for row in values for item in row])
            splits = np.cumsum([0, *map(len, values)], dtype=np.int64)
            features[f"c{i}/row_splits"] = splits
        else:
            features[f"c{i}"] = oracle_values(name, values)
    return features


PLAIN = {name: TYPES[name] for name in ("bigint", "float", "binary")}
PLAIN |= {f"array<{name}>": TYPES[f"array<{name}>"] for name in ("bigint", "float", "binary")}


@few_examples
@given(
    table=st.lists(st.tuples(*PLAIN.values()), min_size=1, max_size=25),
    rows_per_record=rows_in_records,
)
def test_files_are_those_of_the_numpy_oracle(
    spark: SparkSession, tmp_path: Path, table: list[tuple[Any, ...]], rows_per_record: int
) -> None:
    schema = ", ".join(f"c{i} {name}" for i, name in enumerate(PLAIN))
    original = spark.createDataFrame(table, schema).coalesce(1)
    (file,) = write(original, tmp_path / "table", rowsPerRecord=str(rows_per_record))
    packs = [table[at : at + rows_per_record] for at in range(0, len(table), rows_per_record)]
    records = [oracle_record(list(PLAIN), pack) for pack in packs]
    if rows_per_record == 1:
        for record in records:
            for name in [name for name in record if name.endswith("/row_splits")]:
                del record[name]
    assert file.read_bytes() == encode_records(records)


@pytest.mark.parametrize("formats", [("tfrecord", "tfrecords"), ("tfrecords", "tfrecord")])
def test_both_short_names_write_and_read_one_format(
    spark: SparkSession, tmp_path: Path, formats: tuple[str, str]
) -> None:
    spark.range(0, 20, 1, 2).write.format(formats[0]).save(str(tmp_path / "t"))
    back = spark.read.schema("id bigint").format(formats[1]).load(str(tmp_path / "t"))
    assert sorted(row.id for row in back.collect()) == list(range(20))


def test_tensorflow_parses_the_same_values(spark: SparkSession, tmp_path: Path) -> None:
    import tensorflow as tf

    table = spark.range(0, 50, 1, 2).select(
        "id",
        (sf.col("id") / 7).cast("float").alias("x"),
        sf.concat(sf.lit("ü"), "id").alias("text"),
        sf.transform(
            sf.sequence(sf.lit(0), sf.lit(5)), lambda i: (i * sf.col("id")).cast("float")
        ).alias("xs"),
        sf.when(sf.col("id") % 2 == 0, sf.array("id", "id"))
        .otherwise(sf.array().cast("array<bigint>"))
        .alias("ragged"),
    )
    files = [str(file) for file in write(table, tmp_path / "t")]
    records = list(tf.data.TFRecordDataset(files).as_numpy_iterator())
    parsed = tf.io.parse_example(
        records,
        {
            "id": tf.io.FixedLenFeature([], tf.int64),
            "x": tf.io.FixedLenFeature([], tf.float32),
            "text": tf.io.FixedLenFeature([], tf.string),
            "xs": tf.io.FixedLenFeature([6], tf.float32),
            "ragged": tf.io.RaggedFeature(tf.int64),
        },
    )
    expected = sorted(table.collect(), key=lambda row: row.id)
    order = sorted(range(50), key=lambda i: parsed["id"].numpy()[i])
    for row, i in zip(expected, order, strict=True):
        assert parsed["id"].numpy()[i] == row.id
        assert float(parsed["x"].numpy()[i]) == row.x
        assert parsed["text"].numpy()[i].decode() == row.text
        assert parsed["xs"].numpy()[i].tolist() == row.xs
        assert parsed["ragged"][i].numpy().tolist() == row.ragged


def test_files_that_tensorflow_wrote_are_read(spark: SparkSession, tmp_path: Path) -> None:
    import tensorflow as tf

    def example(i: int) -> bytes:
        features = {
            "text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"é{i}".encode()])),
            "xs": tf.train.Feature(float_list=tf.train.FloatList(value=[i / 4, -i])),
            "unwanted": tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(i)] * 3)),
            "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[-i])),
        }
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for i in range(100):
            writer.write(example(i))
    back = read(spark, "id int, text string, xs array<float>", tmp_path / "a.tfrecord")
    assert [tuple(row) for row in back.collect()] == [
        (-i, f"é{i}", [i / 4, float(-i)]) for i in range(100)
    ]


@pytest.mark.parametrize(
    ("codec", "extension", "of_tensorflow"),
    [("gzip", "gz", "GZIP"), ("deflate", "deflate", "ZLIB"), ("zstd", "zst", None)],
)
def test_tensorflow_reads_and_writes_the_codecs_that_are_said(
    spark: SparkSession, tmp_path: Path, codec: str, extension: str, of_tensorflow: str | None
) -> None:
    import tensorflow as tf

    table = spark.range(0, 9, 1, 1)
    table.write.format("tfrecord").option("codec", codec).save(str(tmp_path / "t"))
    (file,) = map(str, (tmp_path / "t").glob(f"*.tfrecord.{extension}"))
    if of_tensorflow is None:
        for compression in ("", "GZIP", "ZLIB"):
            with pytest.raises(tf.errors.OpError):
                list(tf.data.TFRecordDataset(file, compression_type=compression))
        return
    records = list(tf.data.TFRecordDataset(file, compression_type=of_tensorflow))
    parsed = tf.io.parse_example(records, feature_spec(str(tmp_path / "t")))
    assert parsed["id"].numpy().tolist() == list(range(9))
    theirs = str(tmp_path / f"theirs.tfrecord.{extension}")
    with tf.io.TFRecordWriter(theirs, of_tensorflow) as writer:
        for record in records:
            writer.write(record.numpy())
    found = read(spark, "id bigint", Path(theirs)).collect()
    assert sorted(row.id for row in found) == list(range(9))


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "rows_per_record"), [("types", 1), ("packed", 2)])
def test_golden_file_is_read_and_written_again_byte_for_byte(
    spark: SparkSession, tmp_path: Path, name: str, rows_per_record: int
) -> None:
    written = GOLDEN / f"connector_{name}.tfrecord"
    options = {"rowsPerRecord": str(rows_per_record)}
    reader = spark.read.schema(GOLDEN_SCHEMA).options(**options).format("tfrecord")
    golden = reader.load(str(written))
    first, second = golden.select(
        "e_bigint", "j_string", "k_binary", "l_bigints", "i_float"
    ).collect()
    assert tuple(first) == (-(2**63), "", bytearray(b"\x00\xff\xfe"), [], float("-inf"))
    assert tuple(second) == (2**63 - 1, "Zürich ✓", bytearray(), [0, 127, 128, -1, 2**62], 1.5)
    again = golden.coalesce(1).write.format("tfrecord").options(**options)
    again.save(str(tmp_path / "again"))
    (file,) = (tmp_path / "again").glob("*.tfrecord")
    assert file.read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    ("expression", "type_name", "advice"),
    [
        ("1.5", r"decimal\(2,1\)", r"option\(\"allowLossy\", \"true\"\)"),
        ("map('a', 1)", "map<string,int>", "select the map's values"),
        ("array(named_struct('a', 1))", "array<struct<a:int>>", "each field of the structs"),
        ("array(array(1))", "array<array<int>>", r"option\(\"shapes\""),
        ("interval '1' day", "interval day", "cast to one of them"),
        pytest.param(
            *("parse_json('1')", "variant", "cast to one of them"),
            marks=pytest.mark.since_spark("4.0"),
        ),
    ],
)
def test_types_that_lose_something_are_refused_by_column(
    spark: SparkSession,
    ten_records_once: Path,
    tmp_path: Path,
    expression: str,
    type_name: str,
    advice: str,
) -> None:
    table = spark.sql(f"SELECT 1L AS fine, {expression} AS odd")
    write_refused = rf"Cannot write column `odd` \({type_name}\) as TFRecord: .*{advice}"
    with pytest.raises(Exception, match=write_refused) as caught:
        table.write.format("tfrecord").save(str(tmp_path / "t"))
    if "interval" not in type_name and type_name != "variant":
        assert isinstance(caught.value, IllegalArgumentException)
    with pytest.raises(
        IllegalArgumentException, match=rf"Cannot read column `odd` \({type_name}\) as TFRecord"
    ):
        read(spark, table.schema, ten_records_once).collect()


def test_options_are_checked_before_a_task_runs(spark: SparkSession, tmp_path: Path) -> None:
    for options, said in [
        ({"codec": "gzipp"}, r"codec=gzipp is not supported.*Supported: none, uncompressed, gzip"),
        ({"RECORDTYPE": "Row"}, r"recordType=Row is not .*Supported: Example, SequenceExample"),
        ({"rowsPerRecord": "8", "nulls": "omit"}, "do not go together"),
    ]:
        with pytest.raises(IllegalArgumentException, match=said):
            spark.range(1).write.format("tfrecord").options(**options).save(str(tmp_path / "t"))


def test_a_null_names_column_and_partition_and_commits_nothing(
    spark: SparkSession, tmp_path: Path
) -> None:
    numbers = spark.range(0, 10, 1, 5)
    scalar = numbers.select("id", sf.when(sf.col("id") != 7, sf.col("id")).alias("x"))
    message = failure(lambda: write(scalar, tmp_path / "scalar"))
    assert "Cannot write null in column `x` as TFRecord (partition 3)." in message
    element = numbers.select(
        "id", sf.array("id", sf.when(sf.col("id") != 2, sf.col("id"))).alias("xs")
    )
    message = failure(lambda: write(element, tmp_path / "element"))
    assert (
        "Cannot write null in element 1 of array column `xs` as TFRecord (partition 1)." in message
    )
    assert not list(tmp_path.glob("*/*.tfrecord"))


@pytest.fixture
def ten_records(ten_records_once: Path, tmp_path: Path) -> tuple[Path, int]:
    """A file of ten records, which may be damaged, and the length of each."""
    (file,) = shutil.copytree(ten_records_once, tmp_path / "ten").glob("*.tfrecord")
    size = file.stat().st_size
    assert size % 10 == 0
    return file, size // 10


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (3, "length CRC-32C is 0x"),
        (9, "length CRC-32C is 0x"),
        (20, "data CRC-32C is 0x"),
        (-2, "data CRC-32C is 0x"),
    ],
)
def test_a_flipped_bit_names_file_record_and_offset(
    spark: SparkSession, ten_records: tuple[Path, int], at: int, reason: str
) -> None:
    file, size = ten_records
    content = bytearray(file.read_bytes())
    content[4 * size + at % size] ^= 0x10
    file.write_bytes(content)
    where = f"file file:{file}: record 4 (counted from 0) at byte {4 * size}: {reason}"
    assert where in failure(read(spark, "id bigint, text string", file).collect)
    assert where in failure(read(spark, "id bigint, text string", file).count)


@pytest.mark.parametrize("kept", [1, 5, 11, 12, 20, -1])
def test_a_cut_file_names_file_record_and_offset(
    spark: SparkSession, ten_records: tuple[Path, int], kept: int
) -> None:
    file, size = ten_records
    file.write_bytes(file.read_bytes()[: 9 * size + kept % size])
    told = failure(read(spark, "id bigint", file).collect)
    assert f"it has {file.stat().st_size} bytes, _tfrecord_schema.json says {10 * size}" in told
    alone = spark.read.schema("id bigint").option("sideFile", value=False).format("tfrecord")
    message = failure(alone.load(str(file)).collect)
    assert (
        f"Cannot read TFRecord file file:{file}: record 9 (counted from 0) at byte {9 * size}: "
        in message
    )
    assert "the file is truncated" in message


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("id float", "column `id` (float) needs FloatList, the record has Int64List"),
        ("id bigint, missing string", "column `missing` (string) is not in the record"),
        ("id boolean", "column `id` (boolean) holds 0 to 1, the record has 2"),
    ],
)
def test_another_schema_is_an_error_never_a_wrong_row(
    spark: SparkSession, ten_records: tuple[Path, int], schema: str, reason: str
) -> None:
    file, _ = ten_records
    message = failure(read(spark, schema, file).collect)
    assert f"Cannot read TFRecord file file:{file}: record " in message
    assert reason in message


def test_pruning_reads_only_what_is_asked(
    spark: SparkSession, ten_records: tuple[Path, int]
) -> None:
    file, _ = ten_records
    # the latter two columns could not be read
    wide = read(spark, "id bigint, text float, missing bigint", file)
    assert [row.id for row in wide.select("id").collect()] == list(range(10))
    assert wide.count() == 10
    assert "text" in failure(wide.collect)


def test_empty_table_partition_folders_and_file_metadata(
    spark: SparkSession, tmp_path: Path
) -> None:
    write(spark.range(0), tmp_path / "empty")
    assert read(spark, "id bigint", tmp_path / "empty").collect() == []
    table = spark.range(30).select("id", (sf.col("id") % 3).cast("int").alias("kind"))
    table.write.partitionBy("kind").format("tfrecord").save(str(tmp_path / "folders"))
    back = read(spark, "id bigint, kind int", tmp_path / "folders")
    assert rows(back.select("kind", "id")) == rows(table.select("kind", "id"))
    files: list[Row] = back.where("kind = 1").select("_metadata.file_path").distinct().collect()
    assert files
    assert all("/kind=1/" in row.file_path for row in files)


@pytest.mark.smoke
@pytest.mark.parametrize("rows_per_record", [1, 16])
def test_the_python_side_writes_reads_and_tells_tensorflow(
    spark: SparkSession, tmp_path: Path, rows_per_record: int
) -> None:
    import tensorflow as tf

    table = spark.range(0, 50, 1, 1).select(
        "id",
        (sf.col("id") / 8).alias("half"),
        sf.array(*(sf.col("id").cast("float") for _ in range(6))).alias("image"),
        sf.sequence(sf.lit(0), sf.col("id") % 3).alias("varying"),
        sf.concat(sf.lit("ü"), "id").alias("text"),
    )
    path = str(tmp_path / "t")
    write_tfrecord(
        table, path, rows_per_record=rows_per_record, shapes={"image": [6]}, allow_lossy=True
    )
    assert rows(read_tfrecord(spark, path).select("text", "id")) == rows(table.select("text", "id"))
    assert read_tfrecord(spark, path).exceptAll(table).count() == 0
    found = []
    for record in tf.data.TFRecordDataset(sorted(map(str, (tmp_path / "t").glob("*.tfrecord")))):
        one = tf.io.parse_single_example(record, feature_spec(path))
        if rows_per_record == 1:
            one = {name: value[None] for name, value in one.items()}
        found += [
            tuple(np.asarray(one[name][i].numpy()).tolist() for name in table.columns)
            for i in range(one["id"].shape[0])
        ]
    expected = [
        (r.id, r.half, r.image, r.varying, r.text.encode()) for r in table.orderBy("id").collect()
    ]
    assert found == expected

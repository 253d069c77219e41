"""From a table to a dataset and back, on real Spark."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import shutil
import time

import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as sf

import spark_dl
from spark_dl import observed
from spark_dl.config import load_config
from spark_dl.errors import (
    ConfigError,
    DataError,
    ManifestError,
    SchemaError,
    ShardError,
    StorageError,
)
from spark_dl.pipeline import run_prepare
from spark_dl.schema import Feature
from spark_dl.shards import Manifest, Source, checks, prepare
from spark_dl.shards.dataset import Dataset
from spark_dl.shards.placement import partition_keys
from spark_dl.shards.prepare import write_dataset
from spark_dl.shards.selection import rows_of_split
from spark_dl.shards.splits import hash_column, split_column, split_of

pytestmark = [
    pytest.mark.spark,
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ALL = {"train": 1.0}
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def numbers(spark, rows=400, partitions=2):
    return spark.range(0, rows, 1, partitions).select(
        "id",
        sf.array(sf.col("id") / 2, sf.col("id") * 3.0).alias("values"),
        (sf.col("id") % 10).cast("int").alias("digit"),
    )


def write(df, path, **changes):
    settings = {
        "features": ["values"],
        "label": "digit",
        "path": str(path),
        "splits": SPLITS,
        "seed": 7,
    }
    return write_dataset(df, **{**settings, **changes})


def checksums(dataset):
    return [(shard.split, shard.rows, shard.checksum) for shard in dataset.manifest.shards]


def nothing_complete(path):
    """No manifest, and no shards left lying about."""
    left = os.listdir(path) if os.path.isdir(path) else []
    return left == []


# --- what is written is what was there -------------------------------------------------------

TYPES = {
    "boolean": st.booleans(),
    "tinyint": st.integers(-(2**7), 2**7 - 1),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "int": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    "binary": st.binary(max_size=6).map(bytearray),
    "date": st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)),
    "timestamp": st.datetimes(  # naive, as Spark gives them back
        dt.datetime(1900, 1, 1),  # noqa: DTZ001
        dt.datetime(2200, 1, 1),  # noqa: DTZ001
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return iter(tmp_path_factory.mktemp("datasets") / str(n) for n in range(1000))


@settings(
    max_examples=4,  # tables; each is several Spark jobs
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(st.data())
def test_table_to_dataset_to_table_is_the_identity(spark, folders, data):
    one = st.tuples(*TYPES.values(), *(st.lists(values, max_size=4) for values in TYPES.values()))
    rows = data.draw(st.lists(one, min_size=1, max_size=30))
    names = [f"one_{name}" for name in TYPES] + [f"many_{name}" for name in TYPES]
    types = [*TYPES, *(f"array<{name}>" for name in TYPES)]
    ddl = ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))
    df = spark.createDataFrame(rows, ddl)
    dataset = write_dataset(df, features=names, path=str(next(folders)), splits=ALL, seed=1)
    assert dataset.manifest.totals == {"train": len(rows)}
    assert_df_equality(
        dataset.table("train"),
        df,
        ignore_nullable=True,
        ignore_row_order=True,
        allow_nan_equality=True,
    )


def test_the_splits_together_are_the_table(spark, tmp_path):
    df = numbers(spark)
    dataset = write(df, tmp_path / "d", id="id")
    together = (
        dataset.table("train").union(dataset.table("validation")).union(dataset.table("test"))
    )
    expected = df.select(sf.col("values").cast("array<float>"), "digit", "id")
    assert_df_equality(together, expected, ignore_nullable=True, ignore_row_order=True)
    totals = dataset.manifest.totals
    assert sum(totals.values()) == 400
    assert {split: dataset.table(split).count() for split in SPLITS} == totals
    assert 280 < totals["train"] < 350


def test_names_and_order_are_the_spec_s(spark, tmp_path):
    df = numbers(spark)
    dataset = write(
        df,
        tmp_path / "d",
        features={
            "b": "values",
            "a": Feature("id", dtype="int64"),
            "split": Feature("digit", cast="float"),
        },
        label=None,
    )
    assert dataset.table("train").dtypes == [
        ("b", "array<float>"),
        ("a", "bigint"),
        ("split", "float"),
    ]
    assert [entry.derived for entry in dataset.spec.entries] == [
        "cast double to float",
        "as is",
        "cast int to float",
    ]


def test_the_manifest_describes_the_files(spark, tmp_path):
    dataset = write(numbers(spark, 4000), tmp_path / "d")
    manifest = Manifest.read(str(tmp_path / "d"))
    assert manifest == dataset.manifest == Dataset.open(tmp_path / "d").manifest
    assert manifest.rows_per_record > 1
    assert all(shard.crc32c for shard in manifest.shards)
    assert len(manifest.split("train")) == 8
    assert 1 < len(manifest.split("validation")) < 8
    for shard in manifest.shards:
        path = tmp_path / "d" / shard.path
        assert path.stat().st_size == shard.bytes
    seen = dataset.table("train").groupBy(sf.col("_metadata.file_name").alias("name")).count()
    rows = {row["name"]: row["count"] for row in seen.collect()}
    assert rows == {os.path.basename(s.path): s.rows for s in manifest.split("train")}


# --- the same rows make the same bytes -------------------------------------------------------


def test_shards_do_not_depend_on_partitions_or_place(spark, tmp_path):
    df = numbers(spark)
    first = write(df, tmp_path / "a")
    shuffled = df.orderBy(sf.desc("id")).repartition(7)
    second = write(shuffled, tmp_path / "b")
    assert checksums(first) == checksums(second)
    assert first.manifest.fingerprint == second.manifest.fingerprint


def test_each_rank_gets_a_shard_of_a_small_split(spark, tmp_path):
    dataset = write(numbers(spark), tmp_path / "a", min_shards=3)
    shards = [shard.split for shard in dataset.manifest.shards]
    assert min(map(shards.count, SPLITS)) >= 3
    again = write(numbers(spark), tmp_path / "a")
    assert again.manifest == dataset.manifest  # reused


def test_shards_depend_on_the_seed(spark, tmp_path):
    df = numbers(spark)
    assert checksums(write(df, tmp_path / "a")) != checksums(write(df, tmp_path / "b", seed=8))


def test_rows_of_equal_ids_are_ordered_too(spark, tmp_path):
    df = numbers(spark).withColumn("group", (sf.col("id") % 3).cast("int"))
    settings = {"id": "group", "splits": ALL}
    first = write(df, tmp_path / "a", **settings)
    second = write(df.orderBy(sf.desc("id")).repartition(5), tmp_path / "b", **settings)
    assert checksums(first) == checksums(second)


def test_equal_rows_share_a_split(spark, tmp_path):
    df = numbers(spark, 60).drop("id")
    dataset = write(df.union(df).repartition(4), tmp_path / "d")
    for split in SPLITS:
        counts = {row["count"] for row in dataset.table(split).groupBy("values").count().collect()}
        assert counts == {2}


def test_a_row_s_split_depends_on_its_id_only(spark, tmp_path):
    df = numbers(spark)
    changed = df.where("id % 2 = 0").withColumn("digit", sf.lit(1))
    one = write(df, tmp_path / "a", id="id").table("test").where("id % 2 = 0")
    two = write(changed, tmp_path / "b", id="id").table("test")
    assert_df_equality(one.select("id"), two.select("id"), ignore_row_order=True)


@pytest.mark.parametrize(
    "column", ["cast(id % 5 = 0 as boolean)", "if(id % 5 = 0, 'validation', 'train')"]
)
def test_a_column_says_the_split(spark, tmp_path, column):
    df = numbers(spark).withColumn("held out", sf.expr(column))
    dataset = write(df, tmp_path / "d", id="id", split_column="held out")
    assert dataset.manifest.totals == {"train": 320, "validation": 80}
    assert dataset.manifest.splits == {"train": 0.8, "validation": 0.2}
    assert {row["id"] % 5 for row in dataset.table("validation").collect()} == {0}
    chosen = rows_of_split(df, dataset.manifest, "validation")
    assert_df_equality(chosen, df.where("id % 5 = 0"), ignore_row_order=True)


def test_other_splits_of_the_same_rows_replace_the_dataset(spark, tmp_path):
    df = numbers(spark)
    one, two, three = (
        write(df.withColumn("s", sf.expr(said)), tmp_path / "d", split_column="s").manifest
        for said in ("id < 200", "id < 200", "id >= 200")
    )
    assert one.totals == three.totals
    assert one.shards == two.shards
    assert one.fingerprint != three.fingerprint


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("if(id < 3, null, 'train')", DataError, "split column 's': 3 rows hold null"),
        ("cast(id as string)", DataError, "split column 's' holds more than 100 names"),
        ("'../up'", ConfigError, "the name '../up' becomes a folder"),
        ("id", SchemaError, "split column 's' is bigint: expected a string"),
    ],
)
def test_a_column_that_says_no_split(spark, tmp_path, said, error, message):
    with pytest.raises(error, match=re.escape(message)):
        write(numbers(spark).withColumn("s", sf.expr(said)), tmp_path / "d", split_column="s")
    assert nothing_complete(tmp_path / "d")


def test_fractions_and_a_column_both():
    with pytest.raises(ConfigError, match="give either splits or split_column, not both"):
        spark_dl.prepare(None, features=["a"], path="d", splits=SPLITS, split_column="s")


def test_the_job_takes_the_split_from_a_column(spark, tmp_path):
    query = "SELECT id, float(id) a, id % 4 = 0 held_out FROM range(40)"
    settings = [f"table.sql={query}", "features=[a]", "id=id", "dataset.split_column=held_out"]
    settings += [f"dataset.path={tmp_path / 'd'}", f"runs={tmp_path / 'runs'}"]
    run_prepare(load_config(None, settings), spark)
    assert Manifest.read(str(tmp_path / "d")).totals == {"train": 30, "validation": 10}


def test_a_split_column_that_is_not_there(spark, tmp_path):
    with pytest.raises(SchemaError, match="split column 'dgit' is not in the table; did you mean"):
        write(numbers(spark), tmp_path / "d", split_column="dgit")


@pytest.mark.parametrize("splits", [SPLITS, ALL, {"a": 0.3, "b": 0.7}])
def test_spark_splits_as_the_reference_does(spark, splits):
    hashed = hash_column("", 3, ["id"])
    rows = spark.range(500).select(hashed.alias("h"), split_column(hashed, splits).alias("s"))
    found = [(row["h"], row["s"]) for row in rows.collect()]
    assert [split for _, split in found] == [split_of(h, splits) for h, _ in found]


@pytest.mark.parametrize("partitions", [1, 8, 33])
def test_partition_keys_lead_where_spark_says(spark, partitions):
    keys = spark.createDataFrame([(key,) for key in partition_keys(partitions)], "key int")
    placed = keys.repartition(partitions, "key").select("key", sf.spark_partition_id().alias("at"))
    found = {row["at"]: row["key"] for row in placed.collect()}
    assert [found[at] for at in range(partitions)] == partition_keys(partitions)


# --- reuse and replacement -------------------------------------------------------------------


def test_the_same_rows_are_not_written_twice(spark, tmp_path, caplog):
    df = numbers(spark)
    first = write(df, tmp_path / "d")
    before = sorted(os.walk(tmp_path / "d"))
    with caplog.at_level(logging.INFO, logger="spark_dl"):
        second = write(df.repartition(3), tmp_path / "d")
    assert second == first
    assert sorted(os.walk(tmp_path / "d")) == before
    assert "reused" in caplog.text


def test_two_frames_of_one_plan_are_not_taken_for_each_other(spark, tmp_path):
    # their plans print alike: only the rows tell them apart
    one, two = (spark.createDataFrame([(n, k) for n in range(50)], "x int, y int") for k in (0, 1))
    first = write_dataset(one, features=["x", "y"], path=str(tmp_path), splits=ALL, seed=0)
    second = write_dataset(two, features=["x", "y"], path=str(tmp_path), splits=ALL, seed=0)
    assert first.manifest.fingerprint != second.manifest.fingerprint
    assert_df_equality(second.table("train"), two, ignore_row_order=True, ignore_nullable=True)


def test_a_pinned_source_is_reused_without_reading_it(spark, tmp_path):
    source = Source(table="/tables/t", format="delta", version=3)
    first = write(numbers(spark), tmp_path / "d", source=source)
    unreadable = numbers(spark).withColumn("digit", sf.raise_error(sf.lit("was read")).cast("int"))
    assert write(unreadable, tmp_path / "d", source=source) == first
    later = source.model_copy(update={"version": 4})
    with pytest.raises(DataError, match="was read"):
        write(unreadable, tmp_path / "d", source=later)


def test_other_rows_replace_the_dataset(spark, tmp_path):
    first = write(numbers(spark), tmp_path / "d")
    second = write(numbers(spark, 500), tmp_path / "d")
    assert second.manifest.fingerprint != first.manifest.fingerprint
    assert sum(Dataset.open(tmp_path / "d").manifest.totals.values()) == 500
    folders = {shard.path.split("/")[0] for shard in second.manifest.shards}
    assert sorted(os.listdir(tmp_path / "d")) == sorted({"manifest.json", *folders})


def test_a_failed_replacement_leaves_the_dataset_as_it_was(spark, tmp_path, monkeypatch):
    first = write(numbers(spark), tmp_path / "d")
    monkeypatch.setattr(prepare, "compare", _fail)
    with pytest.raises(ShardError, match="on purpose"):
        write(numbers(spark, 500), tmp_path / "d")
    monkeypatch.undo()
    assert Dataset.open(tmp_path / "d", spark) == first
    assert first.table("train").count() == first.manifest.totals["train"]
    assert len(os.listdir(tmp_path / "d")) == 2


def _fail(*_):
    msg = "on purpose"
    raise ShardError(msg)


def test_a_dataset_that_lost_a_shard_is_written_anew(spark, tmp_path, caplog):
    first = write(numbers(spark), tmp_path / "d")
    os.remove(tmp_path / "d" / first.manifest.shards[0].path)
    second = write(numbers(spark), tmp_path / "d")
    assert "is missing or was changed" in caplog.text
    assert checksums(second) == checksums(first)


def half_written(path, name, *, age_s):
    """Make what a prepare that has not committed leaves, last changed `age_s` seconds ago."""
    folder = path / name / "split=train"
    folder.mkdir(parents=True)
    (folder / "part-0").write_text("half")
    then = time.time() - age_s
    for changed in (folder / "part-0", folder, folder.parent):
        os.utime(changed, (then, then))


def test_a_concurrent_prepare_s_shards_are_left_to_it(spark, tmp_path):
    half_written(tmp_path, "data-0123456789ab", age_s=600)
    write(numbers(spark), tmp_path)
    assert (tmp_path / "data-0123456789ab" / "split=train" / "part-0").exists()


def test_shards_that_were_removed_meanwhile_are_not_committed(spark, tmp_path, monkeypatch):
    def sweep_all(*arguments):
        compared(*arguments)
        for folder in tmp_path.glob("d/data-*"):
            shutil.rmtree(folder)

    compared = prepare.compare
    monkeypatch.setattr(prepare, "compare", sweep_all)
    with pytest.raises(StorageError, match="shards were removed while"):
        write(numbers(spark), tmp_path / "d")
    assert nothing_complete(tmp_path / "d")


def test_leftovers_of_a_killed_try_are_removed_and_other_files_stay(spark, tmp_path):
    half_written(tmp_path, "data-0123456789ab", age_s=4000)
    (tmp_path / "notes.txt").write_text("mine")
    dataset = write(numbers(spark), tmp_path)
    own = dataset.manifest.shards[0].path.split("/")[0]
    assert sorted(os.listdir(tmp_path)) == sorted([own, "manifest.json", "notes.txt"])


# --- bad input -------------------------------------------------------------------------------


def test_missing_column(spark, tmp_path):
    with pytest.raises(
        SchemaError, match=r"feature column 'value' is not in the table; did you mean 'values'\?"
    ):
        write(numbers(spark), tmp_path / "d", features=["value"])
    assert nothing_complete(tmp_path / "d")


def test_null_label_in_one_partition(spark, tmp_path):
    df = numbers(spark, partitions=4).withColumn(
        "digit", sf.when(~sf.col("id").isin(150, 160), sf.col("digit"))
    )
    message = r"label column 'digit': 2 rows hold null \(first in partition 1\); filter them out"
    with pytest.raises(DataError, match=message):
        write(df, tmp_path / "d")
    assert nothing_complete(tmp_path / "d")


def test_null_in_an_array(spark, tmp_path):
    df = numbers(spark).withColumn("values", sf.array(sf.col("id"), sf.lit(None)))
    with pytest.raises(DataError, match="feature column 'values': 400 rows hold null"):
        write(df, tmp_path / "d")


@pytest.mark.parametrize("element", ["boolean", "tinyint", "bigint", "float"])
def test_nulls_are_found_whatever_stands_beside_them(spark, tmp_path, element):
    # -113 is the number that nulls are looked for with; all of them are true as booleans
    good = ["array(1, 2)", "array(-113, 5)", "array(-113, -113)"]
    bad = ["array(-113, null)", "array(null, -113)", "array(null, null)", "array(7, null)"]

    def frame(arrays):
        one = f"element_at(array({', '.join(arrays)}), cast(id % {len(arrays)} as int) + 1)"
        values = sf.expr(f"cast({one} as array<{element}>)")
        return numbers(spark).where("id < 140").withColumn("values", values)

    with pytest.raises(DataError, match="feature column 'values': 80 rows hold null"):
        write(frame([*good, *bad]), tmp_path / "bad")
    dataset = write(frame(good), tmp_path / "good", splits={"train": 1.0})
    assert sum(shard.rows for shard in dataset.manifest.shards) == 140


def test_wrong_shape(spark, tmp_path):
    features = {"x": Feature("values", shape=(3, 1))}
    message = r"'values': 400 rows hold arrays of 2 elements .*, expected 3 for shape \(3, 1\)"
    with pytest.raises(DataError, match=message):
        write(numbers(spark), tmp_path / "d", features=features)
    assert nothing_complete(tmp_path / "d")


def test_some_arrays_of_other_lengths(spark, tmp_path):
    df = numbers(spark).withColumn(
        "values",
        sf.sequence(sf.lit(1), sf.when(sf.col("id") < 3, sf.col("id") + 3).otherwise(sf.lit(2))),
    )
    message = r"3 rows hold arrays of 3 to 5 elements \(first in partition 0\), expected 2 for"
    with pytest.raises(DataError, match=message):
        write(df, tmp_path / "d", features={"x": Feature("values", shape=(2,))})
    with pytest.raises(DataError, match=r"2 rows .* expected a multiple of 2 for"):
        write(df, tmp_path / "d", features={"x": Feature("values", shape=(None, 2))})


def test_string_where_a_number_is_asked(spark, tmp_path):
    df = numbers(spark).withColumn("text", sf.col("digit").cast("string"))
    with pytest.raises(
        SchemaError, match="feature column 'text' of type string: dtype float32 asked"
    ):
        write(df, tmp_path / "d", features=[Feature("text", dtype="float32")])
    with pytest.raises(SchemaError, match="weight column 'text': got string, expected a number"):
        write(df, tmp_path / "d", weight="text")


def test_a_text_that_cannot_be_cast(spark, tmp_path):
    df = numbers(spark).withColumn("text", sf.when(sf.col("id") == 5, "five").otherwise("6"))
    with pytest.raises(
        DataError, match=r"'text': 1 rows hold null, or cannot be cast \(cast string to int\)"
    ):
        write(df, tmp_path / "d", features=[Feature("text", cast="int")])


def test_a_cast_that_spark_does_not_know(spark, tmp_path):
    df = numbers(spark).withColumn("flag", sf.col("digit") > 3)
    with pytest.raises(
        SchemaError, match="feature column 'flag': boolean cannot be turned into date"
    ):
        write(df, tmp_path / "d", features=[Feature("flag", cast="date")])


def test_empty_split(spark, tmp_path):
    message = r"split 'test' is empty \(rows by split: train: 5, test: 0\)"
    with pytest.raises(DataError, match=message):
        write(numbers(spark, 5), tmp_path / "d", splits={"train": 0.9999, "test": 0.0001})
    assert nothing_complete(tmp_path / "d")


def test_empty_table(spark, tmp_path):
    with pytest.raises(DataError, match="no rows"):
        write(numbers(spark).where("id < 0"), tmp_path / "d")


def test_splits_that_do_not_sum_to_one(spark, tmp_path):
    with pytest.raises(ConfigError, match=r"sum to 0\.9, expected 1"):
        write(numbers(spark), tmp_path / "d", splits={"train": 0.9})


def test_rows_that_change_between_two_reads(spark, tmp_path):
    df = numbers(spark).withColumn("values", sf.array(sf.expr("unix_micros(current_timestamp())")))
    with pytest.raises(DataError, match="rows changed between checking and writing"):
        write(df, tmp_path / "d", id="id")
    assert nothing_complete(tmp_path / "d")


def test_rows_that_are_fit_once_they_are_looked_at(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "_unfit", lambda spec: sf.lit(True))
    with pytest.raises(DataError, match="rows changed while they were checked"):
        write(numbers(spark), tmp_path / "d")
    assert nothing_complete(tmp_path / "d")


def test_a_write_that_fails_in_spark(spark, tmp_path, monkeypatch):
    # the check finds nothing, then the write meets it: what a table does that changes meanwhile
    df = numbers(spark).withColumn("digit", sf.when(sf.col("id") != 150, sf.col("digit")))
    checked = prepare.inspect_rows
    monkeypatch.setattr(prepare, "inspect_rows", lambda rows, *rest: checked(rows.dropna(), *rest))
    with pytest.raises(DataError, match="Cannot write null in column `digit` as TFRecord") as error:
        write(df, tmp_path / "d")
    assert "\tat " not in str(error.value)
    assert error.value.__cause__ is not None
    assert nothing_complete(tmp_path / "d")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (os.remove, "cannot be read back: .* are missing"),
        (
            lambda shard: shutil.copy(shard, f"{shard}.copy.tfrecord"),
            r"1 shards differ from the connector's side-file \(first: split=train/part-00003-",
        ),
    ],
    ids=["lost", "copied"],
)
def test_shards_that_are_not_those_written_are_not_committed(
    spark, tmp_path, monkeypatch, change, told
):
    write_shards = prepare.write_shards

    def change_a_shard(rows, plan, facts, data, rows_per_record):
        observed = write_shards(rows, plan, facts, data, rows_per_record)
        (shard,) = (tmp_path / "d" / data / "split=train").glob("part-00003*")
        change(shard)
        return observed

    monkeypatch.setattr(prepare, "write_shards", change_a_shard)
    with pytest.raises(ShardError, match=told):
        write(numbers(spark, 2000), tmp_path / "d")
    assert nothing_complete(tmp_path / "d")


def test_without_observations_the_written_rows_are_read_once_more(spark, tmp_path, monkeypatch):
    expected = checksums(write(numbers(spark), tmp_path / "observed"))
    monkeypatch.setattr(observed, "can_observe", lambda spark: False)
    assert checksums(write(numbers(spark), tmp_path / "read")) == expected
    other = prepare.write_shards
    monkeypatch.setattr(
        prepare, "write_shards", lambda rows, *rest: other(rows.where("digit < 9"), *rest)
    )
    with pytest.raises(DataError, match="the rows changed between checking and writing them"):
        write(numbers(spark), tmp_path / "changed")
    assert nothing_complete(tmp_path / "changed")


def test_a_damaged_shard_is_not_committed(spark, tmp_path, monkeypatch):
    write_shards = prepare.write_shards

    def damage_a_shard(rows, plan, facts, data, rows_per_record):
        observed = write_shards(rows, plan, facts, data, rows_per_record)
        folder = tmp_path / "d" / data / "split=train"
        names = sorted(os.listdir(folder))
        part = folder / next(name for name in names if name.endswith(".tfrecord"))
        content = bytearray(part.read_bytes())
        content[30] ^= 1
        part.write_bytes(content)
        return observed

    monkeypatch.setattr(prepare, "write_shards", damage_a_shard)
    with pytest.raises(ShardError, match="cannot be read back"):
        write(numbers(spark), tmp_path / "d")
    assert nothing_complete(tmp_path / "d")


def test_a_folder_without_manifest_is_no_dataset(spark, tmp_path):
    dataset = write(numbers(spark), tmp_path / "d")
    os.remove(tmp_path / "d" / "manifest.json")
    with pytest.raises(ManifestError, match="holds no finished dataset; run prepare first"):
        Dataset.open(dataset.path)


def test_a_split_that_is_not_there(spark, tmp_path):
    dataset = write(numbers(spark), tmp_path / "d")
    with pytest.raises(DataError, match=r"no split 'valid' \(splits: train, validation, test\)"):
        dataset.table("valid")

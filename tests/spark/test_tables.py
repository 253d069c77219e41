"""Tables are read at a version and written once."""

from __future__ import annotations

import contextlib
import json
import logging
import os

import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as sf

from spark_dl import observed
from spark_dl.config import OutputConfig, TableConfig
from spark_dl.errors import TableError
from spark_dl.storage import Storage
from spark_dl.tables import read_table, write_table, written_before

pytestmark = [
    pytest.mark.spark,
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def rows(spark, *numbers):
    return spark.createDataFrame([(n, f"row {n}") for n in numbers], "id int, text string")


@pytest.fixture
def delta(spark, tmp_path):
    """A Delta table of three versions: rows 0; 0, 1; 0, 1, 2."""
    path = str(tmp_path / "digits")
    for number in range(3):
        rows(spark, number).write.format("delta").mode("append").save(path)
    return path


def ids(df):
    return sorted(row["id"] for row in df.collect())


def read(spark, **settings):
    return read_table(spark, TableConfig(**settings))


# --- reading ---------------------------------------------------------------------------------


def test_the_newest_version_is_pinned(spark, delta):
    table = read(spark, path=delta)
    assert (table.version, table.format, table.table, table.where) == (2, "delta", delta, None)
    rows(spark, 3).write.format("delta").mode("append").save(delta)
    assert ids(table.df) == [0, 1, 2]
    assert read(spark, path=delta).version == 3


def test_an_older_version(spark, delta):
    table = read(spark, path=delta, version=0)
    assert (table.version, ids(table.df)) == (0, [0])


def test_where(spark, delta):
    table = read(spark, path=delta, where="id > 0 AND text != 'row 2'")
    assert (table.where, ids(table.df)) == ("id > 0 AND text != 'row 2'", [1])


def test_a_file_uri(spark, delta):
    assert read(spark, path=f"file://{delta}").table == delta


def test_parquet(spark, tmp_path):
    rows(spark, 1, 2).write.parquet(str(tmp_path / "p"))
    table = read(spark, path=str(tmp_path / "p"), format="parquet")
    assert (table.version, table.format, ids(table.df)) == (None, "parquet", [1, 2])


def test_a_query(spark, delta):
    table = read(spark, sql=f"TABLE delta.`{delta}`", where="id = 1")
    assert (table.version, table.format, ids(table.df)) == (None, "sql", [1])


def test_names_in_the_catalog(spark):
    rows(spark, 1).write.format("delta").mode("overwrite").saveAsTable("reader_delta")
    rows(spark, 2).write.format("delta").mode("append").saveAsTable("reader_delta")
    rows(spark, 3).write.format("parquet").mode("overwrite").saveAsTable("reader_parquet")
    newest = read(spark, name="default.reader_delta")
    assert (newest.version, newest.format, ids(newest.df)) == (1, "delta", [1, 2])
    assert ids(read(spark, name="reader_delta", version=0).df) == [1]
    plain = read(spark, name="reader_parquet")
    assert (plain.version, plain.format, ids(plain.df)) == (None, "table", [3])
    with pytest.raises(TableError, match="reader_parquet is no Delta table and has no versions"):
        read(spark, name="reader_parquet", version=0)
    with pytest.raises(TableError, match=r"no table reader_delt; did you mean 'reader_delta'\?"):
        read(spark, name="reader_delt")


def test_a_missing_table_names_the_nearest(spark, delta, tmp_path):
    message = r"digit is no Delta table: there is nothing at this path; did you mean 'digits'\?"
    with pytest.raises(TableError, match=message):
        read(spark, path=str(tmp_path / "digit"))


def test_what_is_there_instead(spark, delta, tmp_path):
    rows(spark, 1).write.parquet(str(tmp_path / "p"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.csv").write_text("1")
    for path, message in {
        "p": "holds Parquet files: use format: parquet",
        "empty": "is an empty folder",
        "other": r"holds a\.csv$",
        ".": "holds the Delta tables digits: add one to the path",
    }.items():
        with pytest.raises(TableError, match=message):
            read(spark, path=str(tmp_path / path))


def test_delta_read_as_parquet_is_refused(spark, delta):
    with pytest.raises(TableError, match="is a Delta table: use format: delta"):
        read(spark, path=delta, format="parquet")


def test_parquet_that_is_not_there(spark, tmp_path):
    with pytest.raises(TableError, match=r"Path does not exist.*: there is nothing at this path"):
        read(spark, path=str(tmp_path / "nope"), format="parquet")


def test_a_version_that_is_not_there(spark, delta):
    message = r"digits cannot be read at version 9: .*Available versions: \[0, 2\]"
    with pytest.raises(TableError, match=message) as error:
        read(spark, path=delta, version=9)
    assert error.value.__cause__ is not None
    assert "\n" not in str(error.value)


def test_a_wrong_condition(spark, delta):
    message = r"where='idd > 1' cannot be used: .*`idd` cannot be resolved.*\(columns: id, text\)"
    with pytest.raises(TableError, match=message) as error:
        read(spark, path=delta, where="idd > 1")
    assert "Filter" not in str(error.value)


def test_a_wrong_query(spark):
    with pytest.raises(TableError, match=r"the query of `table.sql` cannot be run: .*selekt"):
        read(spark, sql="selekt 1")


# --- writing ---------------------------------------------------------------------------------


@pytest.fixture
def predictions(spark):
    def make(scoring_id, *numbers):
        return rows(spark, *numbers).withColumn("scoring_id", sf.lit(scoring_id))

    return make


def write(df, path, scoring_id, *, properties=None, **settings):
    output = OutputConfig(path=str(path), **settings)
    return write_table(df, output, scoring_id=scoring_id, properties=properties)


@pytest.mark.parametrize("form", ["delta", "parquet"])
def test_a_rerun_adds_nothing(spark, predictions, tmp_path, form, caplog):
    path = tmp_path / "out"
    first = write(predictions("a", 1, 2), path, "a", format=form)
    assert (first.rows, first.already_written) == (2, False)
    second = write(predictions("b", 3), path, "b", format=form)
    assert (second.rows, second.already_written) == (1, False)
    with caplog.at_level(logging.INFO, logger="spark_dl"):
        again = write(predictions("a", 1, 2), path, "a", format=form)
    assert (again.rows, again.already_written, again.version) == (2, True, first.version)
    assert "holds scoring a already: nothing was added" in caplog.text
    found = spark.read.format(form).load(str(path))
    expected = predictions("a", 1, 2).union(predictions("b", 3))
    assert_df_equality(found, expected, ignore_nullable=True, ignore_row_order=True)


@pytest.mark.parametrize("numbers", [(1, 2), ()])
def test_rows_are_counted_without_observations_too(
    spark, predictions, tmp_path, monkeypatch, numbers
):
    monkeypatch.setattr(observed, "can_observe", lambda spark: False)
    path = tmp_path / "out"
    for scoring_id in ("a", "b"):  # into a new table, and into one that is there
        written = write(predictions(scoring_id, *numbers), path, scoring_id, format="parquet")
        assert written.rows == len(numbers)


def test_what_a_killed_job_left_is_not_taken_in(spark, predictions, tmp_path):
    """Hadoop's committer takes in whatever tasks it finds where it commits."""
    path = tmp_path / "out"
    write(predictions("a", 1), path, "a", format="parquet")
    left = path / "_temporary" / "0" / "task_202611260000000000000_0001_m_000007"
    predictions("b", 2).coalesce(1).write.parquet(str(tmp_path / "other"))
    (part,) = (tmp_path / "other").glob("part-*")
    left.mkdir(parents=True)
    part.rename(left / part.name)
    write(predictions("b", 2, 3), path, "b", format="parquet")
    assert ids(spark.read.parquet(str(path))) == [1, 2, 3]


class Killed(BaseException):
    """As a signal: nothing tidies up after it."""


@contextlib.contextmanager
def killed_at(step, calls):
    """Let a step of the storage die, at one of the calls of it that follow."""
    real = getattr(Storage, step)
    made = []

    def dying(*arguments):
        made.append(arguments)
        if len(made) == calls:
            raise Killed
        return real(*arguments)

    with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:  # noqa: PT012 - the body is the caller's
        patch.setattr(Storage, step, dying)
        yield


@pytest.mark.parametrize(
    ("mode", "cut", "seen"),
    [
        ("append", ("write_atomic", 1), 1),  # all files are there, and it is not decided
        ("append", ("move", 1), 1),
        ("append", ("move", 3), 3),
        ("overwrite", ("write_atomic", 1), 1),
        ("overwrite", ("commit", 1), None),
    ],
)
def test_a_write_that_was_cut_short_is_finished_by_the_next_one(
    spark, predictions, tmp_path, mode, cut, seen
):
    path = tmp_path / "out"
    settings = {"format": "parquet", "mode": mode}
    write(predictions("a", 1), path, "a", **settings)
    new = predictions("b", 2, 3, 4, 5).repartition(4)
    with killed_at(*cut):
        write(new, path, "b", **settings)
    assert (spark.read.parquet(str(path)).count() if path.exists() else None) == seen
    again = write(new, path, "b", **settings)
    assert (again.rows, again.already_written) == (4, cut[0] != "write_atomic")
    expected = [1, 2, 3, 4, 5] if mode == "append" else [2, 3, 4, 5]
    assert ids(spark.read.parquet(str(path))) == expected
    assert os.listdir(tmp_path) == ["out"]


def test_a_first_write_into_an_empty_folder_may_be_cut_short_too(spark, predictions, tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    with killed_at("write_atomic", 1):
        write(predictions("a", 1), path, "a", format="parquet")
    for name, number in (("b", 2), ("a", 1)):
        assert write(predictions(name, number), path, name, format="parquet").rows == 1
    assert ids(spark.read.parquet(str(path))) == [1, 2]
    assert not list(path.glob("_spark_dl*"))


def test_an_unfinished_write_of_another_name_is_left_alone(spark, predictions, tmp_path):
    path = tmp_path / "out"
    with killed_at("commit", 1):
        write(predictions("a", 1, 2), path, "a", format="parquet")
    write(predictions("b", 3), path, "b", format="parquet")
    assert ids(spark.read.parquet(str(path))) == [3]
    output = OutputConfig(path=str(path), format="parquet")
    assert written_before(spark, output, "a").rows == 2
    assert ids(spark.read.parquet(str(path))) == [1, 2, 3]


@pytest.mark.parametrize("form", ["delta", "parquet"])
def test_overwrite_replaces_the_rows(spark, predictions, tmp_path, form):
    path = tmp_path / "out"
    write(predictions("a", 1, 2), path, "a", format=form, mode="overwrite")
    write(predictions("b", 3), path, "b", format=form, mode="overwrite")
    assert ids(spark.read.format(form).load(str(path))) == [3]
    again = write(predictions("b", 3), path, "b", format=form, mode="overwrite")
    assert again.already_written
    back = write(predictions("a", 1, 2), path, "a", format=form, mode="overwrite")
    assert (back.already_written, back.rows) == (False, 2)
    assert ids(spark.read.format(form).load(str(path))) == [1, 2]


@pytest.mark.parametrize("form", ["delta", "parquet"])
def test_a_failed_overwrite_leaves_the_old_rows(spark, predictions, tmp_path, form):
    path = tmp_path / "out"
    write(predictions("a", 1, 2), path, "a", format=form, mode="overwrite")
    bad = predictions("b", 3).withColumn("id", sf.raise_error(sf.lit("computed")).cast("int"))
    with pytest.raises(TableError, match="computed"):
        write(bad, path, "b", format=form, mode="overwrite")
    assert ids(spark.read.format(form).load(str(path))) == [1, 2]
    assert os.listdir(tmp_path) == ["out"]


def test_a_rerun_does_not_compute_its_rows(spark, predictions, tmp_path):
    write(predictions("a", 1), tmp_path / "out", "a")
    costly = predictions("a", 1).withColumn("id", sf.raise_error(sf.lit("computed")).cast("int"))
    assert write(costly, tmp_path / "out", "a").already_written


def test_versions_are_the_table_s(spark, predictions, tmp_path):
    path = tmp_path / "out"
    assert write(predictions("a", 1), path, "a").version == 1
    rows(spark, 9).withColumn("scoring_id", sf.lit("x")).write.format("delta").mode("append").save(
        str(path)
    )
    assert write(predictions("b", 2), path, "b").version == 3
    assert write(predictions("a", 1), path, "a").version == 1


def test_properties_lie_in_the_table_and_in_the_commits(spark, predictions, tmp_path):
    path = tmp_path / "out"
    write(predictions("a", 1), path, "a", properties={"spark_dl.spec": '{"it\'s": 1}'})
    write(predictions("b", 1), path, "b", properties={"spark_dl.spec": "other"})
    detail = spark.sql(f"DESCRIBE DETAIL delta.`{path}`").collect()[0]
    assert detail["properties"]["spark_dl.spec"] == '{"it\'s": 1}'
    history = spark.sql(f"DESCRIBE HISTORY delta.`{path}`").collect()
    notes = [json.loads(row["userMetadata"]) for row in history if row["userMetadata"]]
    assert notes == [
        {"scoring_id": "b", "properties": {"spark_dl.spec": "other"}},
        {"scoring_id": "a", "properties": {"spark_dl.spec": '{"it\'s": 1}'}},
    ]


def test_other_columns_are_refused(spark, predictions, tmp_path):
    for form in ("delta", "parquet"):
        path = tmp_path / form
        write(predictions("a", 1), path, "a", format=form)
        other = predictions("b", 1).withColumn("more", sf.lit(1))
        with pytest.raises(TableError, match=f"{form}.*(schema mismatch|other columns)"):
            write(other, path, "b", format=form)
        assert spark.read.format(form).load(str(path)).count() == 1


def test_a_failed_write_leaves_no_rows(spark, predictions, tmp_path):
    bad = predictions("a", 1).withColumn(
        "id", sf.when(sf.col("id") == 1, sf.raise_error(sf.lit("no luck"))).cast("int")
    )
    path = tmp_path / "out"
    with pytest.raises(TableError, match=r"cannot be written .*no luck"):
        write(bad, path, "a")
    written = write(predictions("a", 1), path, "a")
    assert (written.rows, written.already_written) == (1, False)


def test_delta_into_a_folder_of_other_files(spark, predictions, tmp_path):
    rows(spark, 1).write.parquet(str(tmp_path / "p"))
    with pytest.raises(TableError, match="p cannot be written"):
        write(predictions("a", 1), tmp_path / "p", "a")


def test_parquet_into_a_delta_table(spark, predictions, delta):
    with pytest.raises(TableError, match=r"is a Delta table: set output\.format to delta"):
        write(predictions("a", 1), delta, "a", format="parquet")


def test_parquet_needs_the_column(spark, tmp_path):
    with pytest.raises(TableError, match="need a column 'scoring_id'"):
        write(rows(spark, 1), tmp_path / "p", "a", format="parquet")


def test_merge_replaces_known_keys_and_adds_others(spark, predictions, tmp_path):
    path = tmp_path / "out"
    merge = {"mode": "merge", "merge_on": "id"}
    first = write(predictions("a", 1, 2), path, "a", **merge)
    assert (first.rows, first.already_written) == (2, False)
    second = write(predictions("b", 2, 3), path, "b", properties={"spark_dl.x": "1"}, **merge)
    assert (second.rows, second.already_written) == (2, False)
    found = spark.read.format("delta").load(str(path))
    kept = {row["id"]: row["scoring_id"] for row in found.collect()}
    assert (kept, found.count()) == ({1: "a", 2: "b", 3: "b"}, 3)
    costly = predictions("b", 1).withColumn("id", sf.raise_error(sf.lit("computed")).cast("int"))
    assert write(costly, path, "b", **merge).already_written
    assert spark.conf.get("spark.databricks.delta.commitInfo.userMetadata", None) is None


def test_a_merge_of_two_rows_of_one_key_is_refused(spark, predictions, tmp_path):
    path = tmp_path / "out"
    with pytest.raises(TableError, match=r"2 of the rows to merge have the key id=1.*merge_on"):
        write(predictions("a", 1, 1), path, "a", mode="merge", merge_on=["id"])
    with pytest.raises(TableError, match=r"merge_on names 'idd'.*did you mean 'id'"):
        write(predictions("a", 1), path, "a", mode="merge", merge_on=["idd"])
    assert spark.read.format("delta").load(str(path)).count() == 0


@pytest.mark.parametrize("form", ["delta", "parquet"])
def test_files_are_laid_apart_by_a_column(spark, predictions, tmp_path, form):
    path = tmp_path / "out"
    for scoring in ("a", "b"):
        write(predictions(scoring, 1, 2), path, scoring, format=form, partition_by="scoring_id")
    assert {entry.name for entry in path.glob("scoring_id=*")} == {"scoring_id=a", "scoring_id=b"}
    assert spark.read.format(form).load(str(path)).count() == 4

"""Write rows into shards, and read back from the shards what was written.

Driver side. A shard is one partition of Spark: a task writes it alone, in a fixed order.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from spark_dl._jvm import brief_cause, ensure_connector, spark_errors
from spark_dl.errors import DataError, ShardError, StorageError
from spark_dl.observed import Observed
from spark_dl.schema.derive import quoted, read_schema
from spark_dl.schema.side_file import side_files
from spark_dl.shards.checks import Content, content_columns
from spark_dl.shards.manifest import Shard
from spark_dl.shards.placement import partition_keys, shard_count
from spark_dl.shards.plan import RECORD_FORMAT
from spark_dl.shards.splits import hash_column
from spark_dl.storage import join, spark_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyspark.sql import Column, DataFrame, SparkSession

    from spark_dl.schema import FeatureSpec
    from spark_dl.schema.side_file import FileFacts
    from spark_dl.shards.checks import SplitFacts
    from spark_dl.shards.plan import DatasetPlan

__all__ = ["compare", "read_back", "write_shards"]


def write_shards(
    rows: DataFrame,
    plan: DatasetPlan,
    facts: Mapping[str, SplitFacts],
    data: str,
    rows_per_record: int,
) -> tuple[dict[str, int], Content]:
    """Write the rows, one task a shard.

    Args:
        rows: the spec's columns, checked.
        plan: what they become.
        facts: rows and size of each split.
        data: name of the folder to write, below the dataset's.
        rows_per_record: rows of a record.

    Returns:
        what Spark saw pass: rows of each split, and the content of all.

    Raises:
        DataError: a row cannot be a record.
        StorageError: the write failed for another reason.
    """
    from pyspark.sql import functions as sf

    split, order, tie, key = (plan.own_name(name) for name in ("split", "order", "tie", "key"))
    spark = rows.sparkSession
    ensure_connector(spark)
    partitions, place = _placement(plan, facts, split, order)
    counts = [
        sf.count_if(sf.col(split) == name).alias(f"split_{index}")
        for index, name in enumerate(plan.splits)
    ]
    observed = Observed(*content_columns(plan.names), *counts)
    placed = (
        rows.withColumn(split, plan.split())
        .withColumn(order, hash_column("order", plan.seed, plan.keys))
        # rows of equal ids need an order too; only rows that are equal in all columns may tie
        .withColumn(tie, hash_column("tie", plan.seed, plan.names))
        .withColumn(key, place)
        .repartition(partitions, key)
        .sortWithinPartitions(split, order, tie)
        .select(*(sf.col(quoted(name)) for name in [*plan.names, split]))
    )
    folder = spark_uri(join(plan.path, data))
    try:
        (
            # after the shuffle, in the task that writes: a task that ran twice counts once
            observed.on(placed)
            .write.partitionBy(split)
            .format(RECORD_FORMAT)
            .options(rowsPerRecord=rows_per_record, shapes=_shapes(plan.spec))
            .save(folder)
        )
        schema = read_schema(plan.spec.entries)
        seen = observed.seen(lambda: spark.read.schema(schema).format(RECORD_FORMAT).load(folder))
    except spark_errors() as error:
        cause = brief_cause(error)
        msg = f"writing the shards to {plan.path} failed: {cause}"
        kind = DataError if "TFRecord" in cause else StorageError
        raise kind(msg) from error
    by_split = {name: int(seen[f"split_{index}"]) for index, name in enumerate(plan.splits)}
    return by_split, Content.from_row(seen)


def _shapes(spec: FeatureSpec) -> str:
    """Return the lengths of the arrays that have a fixed one, as the connector is told them."""
    return json.dumps(
        {entry.name: [entry.size] for entry in spec.entries if entry.shape and entry.size}
    )


def _placement(
    plan: DatasetPlan, facts: Mapping[str, SplitFacts], split: str, order: str
) -> tuple[int, Column]:
    """Return the number of shards of all splits, and the key that leads a row to its own."""
    from pyspark.sql import functions as sf

    counts = [
        shard_count(facts[name].content.rows, facts[name].size_bytes, plan.min_shards)
        for name in plan.splits
    ]
    number: Column = sf.lit(-1)
    begin = 0
    for name, count in zip(plan.splits, counts, strict=True):
        own = (sf.pmod(sf.col(order), sf.lit(count)) + begin).cast("int")
        number = sf.when(sf.col(split) == name, own).otherwise(number)
        begin += count
    keys = sf.array(*(sf.lit(key) for key in partition_keys(begin)))
    return begin, sf.element_at(keys, number + 1)


def read_back(spark: SparkSession, plan: DatasetPlan, data: str) -> tuple[Shard, ...]:
    """Describe the files that were written, from the files.

    Args:
        spark: the session.
        plan: what was to be written.
        data: name of the folder that was written.

    Returns:
        one shard a file, in the order that numbers the rows.

    Raises:
        ShardError: a file cannot be read, or the checksums of its records do not hold.
    """
    from pyspark.sql import functions as sf

    folder = spark_uri(join(plan.path, data))
    try:
        counted = (
            spark.read.schema(read_schema(plan.spec.entries))
            .format(RECORD_FORMAT)
            .load(folder)
            .groupBy(sf.col("_metadata.file_path").alias("path"))
            .count()
            .collect()
        )
        files = (
            spark.read.format("binaryFile")
            .option("recursiveFileLookup", "true")
            .option("pathGlobFilter", "part-*")
            .load(folder)
            .select("path", "length", sf.sha2("content", 256).alias("sha256"))
            .collect()
        )
    except spark_errors() as error:
        msg = f"the shards in {plan.path} cannot be read back: {brief_cause(error)}"
        raise ShardError(msg) from error
    rows = {_below(row["path"], data): row["count"] for row in counted}
    written = side_files(join(plan.path, data))
    shards = [
        Shard(
            path=f"{data}/{below}",
            rows=rows.get(below, 0),
            bytes=length,
            checksum=f"sha256:{digest}",
            split=below.split("/")[0].partition("=")[2],
            crc32c=written[below].crc32c if below in written else None,
        )
        for below, length, digest in ((_below(path, data), n, sha) for path, n, sha in files)
    ]
    _compare_with(written, shards, plan.path)
    return tuple(_in_order(shards, plan.splits))


def _compare_with(written: Mapping[str, FileFacts], shards: Iterable[Shard], path: str) -> None:
    """Check that the files are those that the connector says it wrote, where it could say so."""
    if not written:
        return
    found = {shard.path.partition("/")[2]: (shard.rows, shard.bytes) for shard in shards}
    said = {name: (file.rows, file.bytes) for name, file in written.items()}
    wrong = sorted(name for name in found.keys() | said.keys() if found.get(name) != said.get(name))
    if wrong:
        name = wrong[0]
        msg = (
            f"{path}: {len(wrong)} shards differ from the connector's side-file (first: {name} has "
            f"(rows, bytes) {found.get(name)}, the side-file says {said.get(name)}); nothing was "
            "committed, run prepare again"
        )
        raise ShardError(msg)


def _in_order(shards: Iterable[Shard], splits: Mapping[str, float]) -> list[Shard]:
    """Order shards by split, then by the number of their task, which is in the file's name."""
    position = {name: index for index, name in enumerate(splits)}
    return sorted(shards, key=lambda shard: (position[shard.split], shard.path))


def _below(path: str, data: str) -> str:
    return path.rpartition(f"/{data}/")[2]


def compare(
    totals: Mapping[str, int],
    observed: tuple[Mapping[str, int], Content],
    facts: Mapping[str, SplitFacts],
    path: str,
) -> None:
    """Check that what was found, what Spark wrote and what it was given are the same rows.

    Args:
        totals: rows of each split, counted in the shards.
        observed: what `write_shards` returned.
        facts: what was found before the write.
        path: the dataset's folder.

    Raises:
        ShardError: shards lack rows, or have too many.
        DataError: the rows changed between check and write.
    """
    by_split, content = observed
    if dict(by_split) != dict(totals) or content.rows != sum(totals.values()):
        msg = (
            f"{path}: Spark wrote {dict(by_split)} rows, the shards hold {dict(totals)}; "
            "nothing was committed, run prepare again"
        )
        raise ShardError(msg)
    if content != sum((fact.content for fact in facts.values()), Content()):
        msg = (
            "the rows changed between checking and writing them: the table was written to "
            "meanwhile, or the query gives other rows each time; read a fixed version, or cache "
            "the rows, and run prepare again"
        )
        raise DataError(msg)

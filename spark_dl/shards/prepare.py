"""Write a table as a dataset: checked, split, in a fixed order, and committed by its manifest.

Driver side. The same rows, seed and spec give the same bytes in every shard, whatever the cluster.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spark_dl import __version__
from spark_dl._jvm import brief_cause, ensure_connector, spark_errors
from spark_dl.errors import DataError, ManifestError, SchemaError, ShardError, StorageError
from spark_dl.schema.derive import derive_spec, read_schema, select_columns
from spark_dl.shards.checks import Content, SplitFacts, content_columns, inspect_rows
from spark_dl.shards.dataset import Dataset
from spark_dl.shards.manifest import FORMAT_VERSION, Manifest, Shard, Source
from spark_dl.shards.placement import MIN_SHARDS, TARGET_SHARD_BYTES, partition_keys, shard_count
from spark_dl.shards.splits import check_splits, hash_column, split_column
from spark_dl.storage import Storage, join, normalise, spark_uri

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pyspark.sql import Column, DataFrame, SparkSession

    from spark_dl.schema import Feature, FeatureSpec

__all__ = ["write_dataset"]

logger = logging.getLogger(__name__)

_DATA_PREFIX: Final = "data-"
_FORMAT: Final = "tfrecord"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is to be written, apart from the rows."""

    path: str
    spec: FeatureSpec
    splits: dict[str, float]
    seed: int

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.spec.entries]

    def own_name(self, wish: str) -> str:
        """Return a name for a column of ours that no column of the spec has."""
        taken = {name.casefold() for name in self.names}
        while wish in taken:
            wish += "_"
        return wish

    def split(self) -> Column:
        ids = [entry.name for entry in self.spec.ids]
        return split_column(hash_column("", self.seed, ids or self.names), self.splits)

    def fingerprint(self, source: Source) -> str:
        hidden = {"content_hash"} if source.pinned else set()
        facts = {
            "source": source.model_dump(mode="json", exclude=hidden),
            "spec": self.spec.model_dump(mode="json"),
            "splits": list(self.splits.items()),
            "seed": self.seed,
            "format": [_FORMAT, FORMAT_VERSION, TARGET_SHARD_BYTES, MIN_SHARDS],
        }
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def write_dataset(  # noqa: PLR0913  the façade's `prepare`, one keyword a setting
    df: DataFrame,
    *,
    features: Sequence[str | Feature] | Mapping[str, str | Feature],
    label: str | Feature | None = None,
    weight: str | Feature | None = None,
    id: str | Sequence[str] | None = None,  # noqa: A002  the public word
    path: str,
    splits: Mapping[str, float],
    seed: int,
    source: Source | None = None,
) -> Dataset:
    """Write the rows of a table as TFRecord shards with a manifest.

    A dataset that is there already and was made of the same rows with the same settings is returned as it is; any
    other one is replaced, at the moment the new manifest is written.

    Args:
        df: the rows.
        features: column names, or a mapping of input name to column name or `Feature`.
        label: column of the label.
        weight: column of the sample weights.
        id: columns that identify a row; without them a row's split depends on all its columns.
        path: folder of the dataset, on storage that the driver and the executors share.
        splits: name to fraction.
        seed: seed of the split and of the order.
        source: where `df` came from. Give it only if its table, version and filter say exactly which rows `df` has:
            then a dataset is reused without reading them.

    Returns:
        the finished dataset.

    Raises:
        SchemaError: a column is missing or of a type that does not fit.
        DataError: rows are not fit to be written, or a split is empty. Nothing is left that looks complete.
        ConfigError: the splits are wrong.
        StorageError: the folder cannot be written.
    """
    plan = _Plan(
        path=normalise(path),
        spec=derive_spec(df.schema, features=features, label=label, weight=weight, id=id),
        splits=check_splits(splits),
        seed=seed,
    )
    spark = df.sparkSession
    rows = _project(df, plan.spec)
    source = source or Source()
    found = _existing(plan.path)
    if source.pinned and _reusable(found, plan, source):
        return _reuse(plan, found, spark)
    facts = inspect_rows(rows, plan.spec, plan.split())
    _refuse_empty(facts, plan.splits)
    total = sum((fact.content for fact in facts.values()), Content())
    source = source.model_copy(update={"content_hash": str(total)})
    if not source.pinned and _reusable(found, plan, source):
        return _reuse(plan, found, spark)
    manifest = _write(rows, plan, facts, source)
    return Dataset(plan.path, manifest, spark)


def _project(df: DataFrame, spec: FeatureSpec) -> DataFrame:
    """Select the spec's columns; a cast that Spark has no rule for is refused by column."""
    from pyspark.errors import AnalysisException

    try:
        return df.select(*select_columns(spec.entries))
    except AnalysisException as error:
        for entry in spec.entries:
            try:
                df.select(*select_columns([entry]))
            except AnalysisException:
                msg = (
                    f"{entry.role.value} column {entry.column!r}: {entry.source_type} cannot be turned into "
                    f"{entry.info.spark} ({entry.derived}); convert it in the table first"
                )
                raise SchemaError(msg) from error
        msg = f"the columns cannot be selected: {brief_cause(error)}"
        raise SchemaError(msg) from error


def _existing(path: str) -> Manifest | None:
    storage = Storage(path)
    if not storage.exists(Manifest.path_in(path)):
        return None
    try:
        return Manifest.read(path)
    except ManifestError as error:
        logger.warning("the dataset at %s will be replaced: %s", path, error)
        return None


def _reusable(found: Manifest | None, plan: _Plan, source: Source) -> bool:
    if found is None or found.fingerprint != plan.fingerprint(source):
        return False
    storage = Storage(plan.path)
    for shard in found.shards:
        path = join(plan.path, shard.path)
        if not storage.exists(path) or storage.size(path) != shard.bytes:
            logger.warning("%s is missing or was changed: the dataset is written anew", path)
            return False
    return True


def _reuse(plan: _Plan, found: Manifest | None, spark: SparkSession) -> Dataset:
    if found is None:  # pragma: no cover  `_reusable` said otherwise
        msg = f"{plan.path} has no manifest to reuse"
        raise ManifestError(msg)
    logger.info("%s holds these rows already (%s): reused", plan.path, found.fingerprint)
    return Dataset(plan.path, found, spark)


def _refuse_empty(facts: Mapping[str, SplitFacts], splits: Mapping[str, float]) -> None:
    counts = {name: facts[name].content.rows if name in facts else 0 for name in splits}
    if not sum(counts.values()):
        msg = "the table has no rows (after its filter, if there is one): nothing to write"
        raise DataError(msg)
    empty = [name for name, count in counts.items() if not count]
    if empty:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        msg = (
            f"split {', '.join(map(repr, empty))} is empty (rows by split: {listed}): "
            "give it a larger fraction, leave it out, use another seed or more rows"
        )
        raise DataError(msg)


def _write(rows: DataFrame, plan: _Plan, facts: Mapping[str, SplitFacts], source: Source) -> Manifest:
    """Write the shards into a folder of their own, check them, and commit them with the manifest."""
    storage = Storage(plan.path)
    storage.make_folder(plan.path)
    _sweep(storage, plan.path)
    data = f"{_DATA_PREFIX}{uuid.uuid4().hex[:12]}"
    try:
        observed = _write_shards(rows, plan, facts, data)
        shards = _read_back(rows.sparkSession, plan, data)
        totals = {
            name: sum(shard.rows for shard in shards if shard.split == name) for name in plan.splits
        }
        _compare(totals, observed, facts, plan.path)
        manifest = Manifest(
            spec=plan.spec,
            shards=shards,
            totals=totals,
            splits=plan.splits,
            seed=plan.seed,
            source=source,
            fingerprint=plan.fingerprint(source),
            spark_dl_version=__version__,
        )
        manifest.write(plan.path)
    except BaseException:
        storage.remove(join(plan.path, data))
        raise
    _sweep(storage, plan.path, keep=data)
    logger.info(
        "wrote %s: %s rows in %d shards", plan.path, totals, len(shards)
    )
    return manifest


def _sweep(storage: Storage, path: str, keep: str | None = None) -> None:
    """Remove folders of shards that no manifest speaks for: of failed tries and of the dataset before."""
    current = _existing(path)
    kept = {shard.path.split("/")[0] for shard in current.shards} if current else set()
    for name in storage.list(path):
        if name.startswith(_DATA_PREFIX) and name not in kept and name != keep:
            logger.info("removing %s, which belongs to no dataset", join(path, name))
            storage.remove(join(path, name))


def _write_shards(
    rows: DataFrame, plan: _Plan, facts: Mapping[str, SplitFacts], data: str
) -> tuple[dict[str, int], Content]:
    """Write the rows, one task a shard; return what Spark saw pass: rows of each split, and their content."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as sf

    split, order, tie, key = (plan.own_name(name) for name in ("split", "order", "tie", "key"))
    spark = rows.sparkSession
    ensure_connector(spark)
    partitions, place = _placement(plan, facts, split, order)
    observation = Observation()
    counts = [
        sf.count_if(sf.col(split) == name).alias(f"split_{index}")
        for index, name in enumerate(plan.splits)
    ]
    placed = (
        rows.withColumn(split, plan.split())
        .withColumn(order, hash_column("order", plan.seed, [e.name for e in plan.spec.ids] or plan.names))
        # rows of equal ids need an order too; only rows that are equal in all columns may tie
        .withColumn(tie, hash_column("tie", plan.seed, plan.names))
        .withColumn(key, place)
        .repartition(partitions, key)
        .sortWithinPartitions(split, order, tie)
        .select(*(sf.col("`" + name.replace("`", "``") + "`") for name in [*plan.names, split]))
        # after the shuffle, in the task that writes: a task that ran twice counts once
        .observe(observation, *content_columns(plan.names), *counts)
    )
    try:
        placed.write.partitionBy(split).format(_FORMAT).save(spark_uri(join(plan.path, data)))
    except spark_errors() as error:
        cause = brief_cause(error)
        msg = f"writing the shards to {plan.path} failed: {cause}"
        kind = DataError if "TFRecord" in cause else StorageError
        raise kind(msg) from error
    seen = observation.get
    by_split = {name: int(seen[f"split_{index}"]) for index, name in enumerate(plan.splits)}
    return by_split, Content.from_row(seen)


def _placement(
    plan: _Plan, facts: Mapping[str, SplitFacts], split: str, order: str
) -> tuple[int, Column]:
    """Return the number of shards of all splits, and the key that leads a row to its own."""
    from pyspark.sql import functions as sf

    counts = [
        shard_count(facts[name].content.rows, facts[name].size_bytes) for name in plan.splits
    ]
    number: Column = sf.lit(-1)
    begin = 0
    for name, count in zip(plan.splits, counts, strict=True):
        own = (sf.pmod(sf.col(order), sf.lit(count)) + begin).cast("int")
        number = sf.when(sf.col(split) == name, own).otherwise(number)
        begin += count
    keys = sf.array(*(sf.lit(key) for key in partition_keys(begin)))
    return begin, sf.element_at(keys, number + 1)


def _read_back(spark: SparkSession, plan: _Plan, data: str) -> tuple[Shard, ...]:
    """Describe the files that were written, from the files: rows (checksums of records hold), length, SHA-256."""
    from pyspark.sql import functions as sf

    folder = spark_uri(join(plan.path, data))
    try:
        counted = (
            spark.read.schema(read_schema(plan.spec.entries))
            .format(_FORMAT)
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
    shards = [
        Shard(
            path=f"{data}/{below}",
            rows=rows.get(below, 0),
            bytes=length,
            checksum=f"sha256:{digest}",
            split=below.split("/")[0].partition("=")[2],
        )
        for below, length, digest in ((_below(path, data), n, sha) for path, n, sha in files)
    ]
    return tuple(_in_order(shards, plan.splits))


def _in_order(shards: Iterable[Shard], splits: Mapping[str, float]) -> list[Shard]:
    """Order shards by split, then by number of the task that wrote them, which is in the file's name."""
    position = {name: index for index, name in enumerate(splits)}
    return sorted(shards, key=lambda shard: (position[shard.split], shard.path))


def _below(path: str, data: str) -> str:
    return path.rpartition(f"/{data}/")[2]


def _compare(
    totals: Mapping[str, int],
    observed: tuple[Mapping[str, int], Content],
    facts: Mapping[str, SplitFacts],
    path: str,
) -> None:
    by_split, content = observed
    if dict(by_split) != dict(totals) or content.rows != sum(totals.values()):
        msg = (
            f"{path}: Spark wrote {dict(by_split)} rows, the shards hold {dict(totals)}; "
            "nothing was committed, run prepare again"
        )
        raise ShardError(msg)
    if content != sum((fact.content for fact in facts.values()), Content()):
        msg = (
            "the rows changed between checking and writing them: the table was written to meanwhile, or the query "
            "gives other rows each time; read a fixed version, or cache the rows, and run prepare again"
        )
        raise DataError(msg)

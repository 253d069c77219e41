"""Write a table as a dataset: checked, split, in a fixed order, and committed by its manifest.

Driver side. The same rows, seed and spec give the same bytes in every shard, whatever the cluster.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from spark_dl import __version__
from spark_dl._jvm import brief_cause, ensure_connector
from spark_dl.errors import DataError, ManifestError, SchemaError, StorageError
from spark_dl.schema.derive import derive_spec, select_columns, with_vocabulary
from spark_dl.shards.checks import Content, SplitFacts, inspect_rows
from spark_dl.shards.dataset import Dataset
from spark_dl.shards.manifest import Manifest, Source
from spark_dl.shards.plan import DatasetPlan
from spark_dl.shards.splits import check_splits, given_split
from spark_dl.shards.writing import compare, read_back, write_shards
from spark_dl.storage import Storage, join, normalise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame

    from spark_dl.schema import Feature

__all__ = ["write_dataset"]

logger = logging.getLogger(__name__)

_DATA_PREFIX: Final = "data-"
#: Shards that no manifest names and that have not changed for so long were left by a killed
#: prepare; younger ones may be those of another prepare, which is about to commit them.
_LEFT_AFTER: Final = timedelta(hours=1)


def write_dataset(  # noqa: PLR0913  the façade's `prepare`, one keyword a setting
    df: DataFrame,
    *,
    features: Sequence[str | Feature] | Mapping[str, str | Feature],
    label: str | Feature | None = None,
    weight: str | Feature | None = None,
    id: str | Sequence[str] | None = None,  # noqa: A002  the public word
    path: str,
    splits: Mapping[str, float],
    split_column: str | None = None,
    seed: int,
    rows_per_record: int | None = None,
    min_shards: int = 1,
    source: Source | None = None,
) -> Dataset:
    """Write the rows of a table as TFRecord shards with a manifest.

    A dataset that is there already and was made of the same rows with the same settings is
    returned as it is; any other one is replaced, at the moment the new manifest is written.

    Args:
        df: the rows.
        features: column names, or a mapping of input name to column name or `Feature`.
        label: column of the label.
        weight: column of the sample weights.
        id: columns that identify a row; without them a row's split depends on all its columns.
        path: folder of the dataset, on storage that the driver and the executors share.
        splits: name to fraction; not looked at when a `split_column` is given.
        split_column: column that says each row's split: its name, or a boolean, true for the rows
            to validate on. It is not written.
        seed: seed of the split and of the order.
        rows_per_record: rows that are packed into a record; `None` goes by their size, 1 packs
            none.
        min_shards: shards that each split has at least, if it has so many rows: give the number of
            ranks that will read it.
        source: where `df` came from. Give it only if its table, version and filter say exactly
            which rows `df` has: then a dataset is reused without reading them.

    Returns:
        the finished dataset.

    Raises:
        SchemaError: a column is missing or of a type that does not fit.
        DataError: rows are not fit to be written, or a split is empty. Nothing is left that looks
            complete.
        ConfigError: the splits are wrong, or the session's connector is missing or of another
            version than this package.
        StorageError: the folder cannot be written.
    """
    plan = DatasetPlan(
        path=normalise(path),
        spec=with_vocabulary(
            derive_spec(df.schema, features=features, label=label, weight=weight, id=id), df
        ),
        splits={} if split_column is not None else check_splits(splits),
        seed=seed,
        rows_per_record=rows_per_record,
        split_column=split_column,
        min_shards=min_shards,
    )
    spark = df.sparkSession
    ensure_connector(spark)  # before the pass over the rows, which may take long
    rows = _project(df, plan)
    source = source or Source()
    found = _existing(plan.path)
    if found and source.pinned and _reusable(found, plan, source):
        return Dataset(plan.path, found, spark)
    facts = inspect_rows(rows, plan)
    plan = _with_found_splits(plan, facts)
    _refuse_empty(facts, plan.splits)
    source = source.model_copy(update={"content_hash": _content(plan, facts)})
    if found and not source.pinned and _reusable(found, plan, source):
        return Dataset(plan.path, found, spark)
    return Dataset(plan.path, _write(rows, plan, facts, source), spark)


def _with_found_splits(plan: DatasetPlan, facts: Mapping[str, SplitFacts]) -> DatasetPlan:
    """Where a column says the splits, they are known once the rows were read."""
    rows = {name: facts[name].content.rows for name in sorted(facts)}
    if plan.split_column is None or not rows:
        return plan
    fractions = {name: count / sum(rows.values()) for name, count in rows.items()}
    return dataclasses.replace(plan, splits=check_splits(fractions))


def _content(plan: DatasetPlan, facts: Mapping[str, SplitFacts]) -> str:
    """Return the hash of all rows; with their splits, unless the rows decide those."""
    if plan.split_column is None:
        return str(sum((fact.content for fact in facts.values()), Content()))
    return " ".join(f"{name}={facts[name].content}" for name in plan.splits)


def _project(df: DataFrame, plan: DatasetPlan) -> DataFrame:
    """Select the columns to write; a cast that Spark has no rule for is refused by column."""
    from pyspark.errors import AnalysisException

    spec = plan.spec
    split = []
    if plan.split_column is not None:
        split = [given_split(df, plan.split_column).alias(plan.given)]
    try:
        return df.select(*select_columns(spec.entries), *split)
    except AnalysisException as error:
        for entry in spec.entries:
            try:
                df.select(*select_columns([entry]))
            except AnalysisException:
                msg = (
                    f"{entry.role.value} column {entry.column!r}: {entry.source_type} cannot be "
                    f"turned into {entry.info.spark} ({entry.derived}); convert it before prepare"
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


def _reusable(found: Manifest, plan: DatasetPlan, source: Source) -> bool:
    if found.fingerprint != plan.fingerprint(source):
        return False
    storage = Storage(plan.path)
    for shard in found.shards:
        path = join(plan.path, shard.path)
        if not storage.exists(path) or storage.size(path) != shard.bytes:
            logger.warning("%s is missing or was changed: the dataset is written anew", path)
            return False
    logger.info("%s holds these rows already (%s): reused", plan.path, found.fingerprint)
    return True


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


def _write(
    rows: DataFrame, plan: DatasetPlan, facts: Mapping[str, SplitFacts], source: Source
) -> Manifest:
    """Write the shards into a folder of their own, check them, commit them by the manifest."""
    storage = Storage(plan.path)
    storage.make_folder(plan.path)
    _sweep(storage, plan.path)
    data = f"{_DATA_PREFIX}{uuid.uuid4().hex[:12]}"
    try:
        total = sum((fact.content.rows for fact in facts.values()), 0)
        size = sum(fact.size_bytes for fact in facts.values())
        rows_per_record = plan.rows_in_record(total, size)
        observed = write_shards(rows, plan, facts, data, rows_per_record)
        shards = read_back(rows.sparkSession, plan, data)
        totals = {
            name: sum(shard.rows for shard in shards if shard.split == name) for name in plan.splits
        }
        compare(totals, observed, facts, plan.path)
        manifest = Manifest(
            rows_per_record=rows_per_record,
            spec=plan.spec,
            shards=shards,
            totals=totals,
            splits=plan.splits,
            split_column=plan.split_column,
            seed=plan.seed,
            source=source,
            fingerprint=plan.fingerprint(source),
            spark_dl_version=__version__,
        )
        _refuse_lost(storage, manifest, plan.path)
        before = _existing(plan.path)
        manifest.write(plan.path)
    except BaseException:
        storage.remove(join(plan.path, data))
        raise
    for folder in _folders(before) - {data}:
        storage.remove(join(plan.path, folder))
    logger.info("wrote %s: %s rows in %d shards", plan.path, totals, len(shards))
    return manifest


def _refuse_lost(storage: Storage, manifest: Manifest, path: str) -> None:
    """Check that the shards still exist: somebody may have removed them meanwhile."""
    there = set(storage.files(path))
    lost = [shard.path for shard in manifest.shards if shard.path not in there]
    if lost:
        msg = (
            f"{path}: {len(lost)} of {len(manifest.shards)} shards were removed while they were "
            f"being written (first: {lost[0]}); nothing was committed, run prepare again"
        )
        raise StorageError(msg)


def _folders(manifest: Manifest | None) -> set[str]:
    """Return the names of the folders, below the dataset's, that hold a manifest's shards."""
    return {shard.path.split("/")[0] for shard in manifest.shards} if manifest else set()


def _sweep(storage: Storage, path: str) -> None:
    """Remove shards that no manifest speaks for and that nobody is writing any more."""
    kept = _folders(_existing(path))
    for name in storage.list(path):
        if not name.startswith(_DATA_PREFIX) or name in kept:
            continue
        changed = storage.last_change(join(path, name))
        if changed is not None and datetime.now(UTC) - changed > _LEFT_AFTER:
            logger.info("removing %s, which belongs to no dataset", join(path, name))
            storage.remove(join(path, name))

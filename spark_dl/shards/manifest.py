"""The manifest of a dataset: written last, so that without it there is no data.

Pure: neither pyspark nor tensorflow.
"""

from __future__ import annotations

import json
import posixpath
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from spark_dl.errors import DataError, ManifestError
from spark_dl.schema import FeatureSpec
from spark_dl.storage import Storage, join, normalise

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FORMAT_VERSION", "MANIFEST_NAME", "Manifest", "Shard", "Source"]

FORMAT_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"


class Shard(BaseModel):
    """One TFRecord file.

    Attributes:
        path: path below the dataset's folder, with ``/``.
        rows: number of rows in it.
        bytes: its length.
        checksum: ``sha256:<hex>`` of the file.
        split: the split that it belongs to.
        crc32c: CRC-32C of the file as the connector wrote it; `None` where it did not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    checksum: str
    split: str
    crc32c: str | None = None

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if path.startswith("/") or "://" in path or ".." in posixpath.normpath(path).split("/"):
            msg = f"shard path {path!r} leaves the dataset's folder"
            raise ValueError(msg)
        return path


class Source(BaseModel):
    """Where the rows came from.

    Attributes:
        table: path or name of the table; `None` for a DataFrame of unknown origin.
        format: its format.
        version: the Delta version that was read.
        where: the filter that was applied.
        plan_hash: hash of the rows' logical plan, which tells two queries apart.
        content_hash: hash of the rows themselves, whatever their order; it identifies them where no
            version does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str | None = None
    format: str | None = None
    version: int | None = None
    where: str | None = None
    plan_hash: str | None = None
    content_hash: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether table, version and filter say which rows these are without reading them."""
        return self.table is not None and self.version is not None


class Manifest(BaseModel):
    """What a dataset's folder holds.

    Attributes:
        format_version: version of this format.
        record_format: always ``tfrecord`` so far.
        rows_per_record: rows of a record; all records of a shard are full but the last. 1 is a
            record a row.
        codec: compression of the shards; `None` for none.
        spec: the columns.
        shards: the files, in the order that numbers the rows: row ``i`` of a split is the ``i``-th
            row of its shards.
        totals: rows of each split, also of empty ones.
        splits: the fractions asked for; where a column says the split, those that were found.
        split_column: the table's column that says each row's split; `None` where the seeded hash
            does.
        seed: seed of the split hash.
        source: where the rows came from.
        fingerprint: equal for equal source, spec, splits, seed and format: such a dataset is
            reused.
        spark_dl_version: version that wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    record_format: Literal["tfrecord"] = "tfrecord"
    rows_per_record: int = Field(default=1, ge=1)
    codec: str | None = None
    spec: FeatureSpec
    shards: tuple[Shard, ...]
    totals: dict[str, int]
    splits: dict[str, float]
    split_column: str | None = None
    seed: int
    source: Source = Source()
    fingerprint: str
    spark_dl_version: str

    @model_validator(mode="after")
    def _totals_agree(self) -> Self:
        for split, total in self.totals.items():
            counted = sum(shard.rows for shard in self.shards if shard.split == split)
            if counted != total:
                msg = f"split {split!r}: the shards hold {counted} rows, the totals say {total}"
                raise ValueError(msg)
        return self

    def split(self, name: str) -> tuple[Shard, ...]:
        """Return the shards of one split.

        Raises:
            DataError: there is no such split, or it is empty.
        """
        if name not in self.totals:
            msg = f"the dataset has no split {name!r} (splits: {', '.join(self.totals)})"
            raise DataError(msg)
        if not self.totals[name]:
            msg = f"split {name!r} is empty: give it a larger fraction or more rows"
            raise DataError(msg)
        return tuple(shard for shard in self.shards if shard.split == name)

    @staticmethod
    def path_in(folder: str) -> str:
        """Return the manifest's path in a dataset's folder."""
        return join(normalise(folder), MANIFEST_NAME)

    def write(self, folder: str) -> None:
        """Write the manifest: the commit of the dataset."""
        path = self.path_in(folder)
        Storage(path).write_atomic(path, self.model_dump_json(indent=2))

    @classmethod
    def read(cls, folder: str) -> Manifest:
        """Read the manifest of a dataset's folder.

        Raises:
            ManifestError: there is none, or it is of another format version, or damaged.
        """
        path = cls.path_in(folder)
        storage = Storage(path)
        if not storage.exists(path):
            msg = f"{path} does not exist: {folder} holds no finished dataset; run prepare first"
            raise ManifestError(msg)
        text = storage.read_bytes(path)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            version = _format_version(text)
            if version != FORMAT_VERSION and isinstance(version, int):
                msg = (
                    f"{path} is of format version {version}, this spark_dl reads {FORMAT_VERSION}: "
                    "use the spark_dl that wrote it, or prepare the dataset again"
                )
            else:
                msg = f"{path} cannot be used, prepare the dataset again: {error}"
            raise ManifestError(msg) from error


def _format_version(text: bytes) -> object:
    """Return what a manifest that cannot be read says of its format, `None` if nothing."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found.get("format_version") if isinstance(found, dict) else None

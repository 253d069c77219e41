"""The side-file that the connector writes beside TFRecord files: what the format cannot tell.

Pure: neither pyspark nor tensorflow.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spark_dl.errors import ManifestError
from spark_dl.storage import Storage, join, normalise

__all__ = ["SIDE_FILE_NAME", "FeatureFacts", "FileFacts", "SideFile", "side_files"]

SIDE_FILE_NAME: Final = "_tfrecord_schema.json"


class FileFacts(BaseModel):
    """What one data file holds.

    Attributes:
        path: path below the table's folder.
        rows: its rows.
        records: its records.
        bytes: its length.
        crc32c: CRC-32C of the file, 8 hexadecimal digits.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    rows: int
    records: int
    bytes: int
    crc32c: str


class FeatureFacts(BaseModel):
    """How a column lies in the records.

    Attributes:
        name: the feature's key.
        list: ``BytesList``, ``FloatList`` or ``Int64List``.
        type: Spark's name of the type of a value.
        array: whether a row has several values.
        shape: their dimensions, where they are fixed.
        row_splits: in packed records, the feature that says which values are which row's.
        sequence: whether it is a feature list of a SequenceExample.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    list: str
    type: str
    array: bool
    shape: tuple[int, ...] | None = None
    row_splits: str | None = Field(default=None, alias="rowSplits")
    sequence: bool = False


class SideFile(BaseModel):
    """What the side-file of a table says.

    Attributes:
        options: options of the write that readers need, such as ``rowsPerRecord``.
        features: the columns.
        files: the data files.
    """

    model_config = ConfigDict(frozen=True)

    options: dict[str, str]
    features: tuple[FeatureFacts, ...]
    files: tuple[FileFacts, ...]

    @property
    def rows_per_record(self) -> int:
        """Rows of a full record."""
        return int(self.options.get("rowsPerRecord", "1"))

    @classmethod
    def read(cls, folder: str) -> SideFile | None:
        """Read the side-file of a table's folder; `None` where there is none.

        Raises:
            ManifestError: the file is no side-file of this version.
        """
        path = join(normalise(folder), SIDE_FILE_NAME)
        storage = Storage(path)
        if not storage.exists(path):
            return None
        try:
            return cls.model_validate_json(storage.read_bytes(path))
        except ValidationError as error:
            msg = f"{path} cannot be used: {error}; write the table again"
            raise ManifestError(msg) from error


def side_files(folder: str) -> dict[str, FileFacts]:
    """Return what a table's side-file says of each file, by its path; empty without side-file."""
    found = SideFile.read(folder)
    return {file.path: file for file in found.files} if found else {}

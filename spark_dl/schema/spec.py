"""FeatureSpec: the one description of rows that training and inference share.

It lies in the manifest, beside the exported model and in the predictions table's properties,
so that training and inference cannot disagree. Pure: neither pyspark nor tensorflow.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from spark_dl.errors import SchemaError
from spark_dl.schema.types import DTYPES, DType, DTypeInfo

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Feature", "FeatureSpec", "Role", "SpecEntry"]


class Role(StrEnum):
    """What a column is for."""

    FEATURE = "feature"
    LABEL = "label"
    WEIGHT = "weight"
    ID = "id"
    PASSTHROUGH = "passthrough"


class Feature(BaseModel):
    """How a table column becomes a model input, as a user writes it.

    Attributes:
        column: name of the table's column.
        shape: shape of one row's tensor, without the batch dimension. `None` derives it: ``()`` for
            a scalar, ``(None,)`` (variable length) for an array. An array column is reshaped to it
            in row-major order.
        dtype: element type that the model sees; `None` keeps the column's. Only lossless changes
            are made.
        cast: Spark SQL element type to cast to first, accepting what is lost (``"float"`` for a
            decimal).

    Example:
        >>> Feature("pixels", shape=(8, 8, 1)).shape
        (8, 8, 1)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    shape: tuple[int | None, ...] | None = None
    dtype: DType | None = None
    cast: str | None = None

    def __init__(self, column: str | None = None, **settings: object) -> None:
        """Take the column as the only positional argument."""
        super().__init__(**(settings if column is None else {"column": column, **settings}))


class SpecEntry(BaseModel):
    """One column of a dataset.

    Attributes:
        name: name of the model's input (or of the label, weight, id); also the feature's key in the
            TFRecord.
        column: the table's column that it comes from.
        dtype: element type, a key of `DTYPES`.
        shape: shape of one row's tensor; `None` is a variable dimension (only the first may be
            one).
        role: what it is for.
        source_type: Spark's `simpleString` of the column as it was in the table.
        derived: how the value was made from the column (``"as is"``, ``"cast double to float"``).
        vocabulary: of a label that is text in the table: the texts, sorted; the value is a text's
            place among them. Not written where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    column: str
    dtype: DType
    shape: tuple[int | None, ...] = ()
    role: Role = Role.FEATURE
    source_type: str = ""
    derived: str = "as is"
    vocabulary: tuple[str, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave a vocabulary out that is not there: specs written before had none."""
        values: dict[str, object] = write(self)
        if self.vocabulary is None:
            values.pop("vocabulary", None)
        return values

    @property
    def info(self) -> DTypeInfo:
        """The entry's row of the table of types."""
        return DTYPES[self.dtype]

    @property
    def is_array(self) -> bool:
        """Whether the column is an array in the table."""
        return bool(self.shape)

    @property
    def size(self) -> int | None:
        """Number of elements of one row, `None` when it varies."""
        total = 1
        for dim in self.shape:
            if dim is None:
                return None
            total *= dim
        return total


class FeatureSpec(BaseModel):
    """An ordered list of the columns of a dataset.

    Attributes:
        entries: all columns, in the order in which they are written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: tuple[SpecEntry, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [entry.name for entry in self.entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"names are used twice: {', '.join(twice)}"
            raise ValueError(msg)
        for role in (Role.LABEL, Role.WEIGHT):
            if sum(entry.role is role for entry in self.entries) > 1:
                msg = f"more than one {role.value} column"
                raise ValueError(msg)
        return self

    def with_role(self, role: Role) -> tuple[SpecEntry, ...]:
        """Return the entries of one role, in order."""
        return tuple(entry for entry in self.entries if entry.role is role)

    @property
    def features(self) -> tuple[SpecEntry, ...]:
        """The model's inputs, in order."""
        return self.with_role(Role.FEATURE)

    @property
    def label(self) -> SpecEntry | None:
        """The label, if there is one."""
        return next(iter(self.with_role(Role.LABEL)), None)

    @property
    def weight(self) -> SpecEntry | None:
        """The sample weight, if there is one."""
        return next(iter(self.with_role(Role.WEIGHT)), None)

    @property
    def ids(self) -> tuple[SpecEntry, ...]:
        """The columns that identify a row."""
        return self.with_role(Role.ID)

    def __getitem__(self, name: str) -> SpecEntry:
        """Return the entry called `name`.

        Raises:
            SchemaError: there is none; the message lists those that there are.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise SchemaError.missing_column(name, [entry.name for entry in self.entries])

    def to_json(self) -> str:
        """Return the spec as JSON text."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = "feature spec") -> FeatureSpec:
        """Read a spec from JSON text.

        Args:
            text: what `to_json` gave.
            where: the path it came from, for the error.

        Raises:
            SchemaError: the text is not a feature spec.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            msg = f"{where} is not a feature spec: {error}"
            raise SchemaError(msg) from error

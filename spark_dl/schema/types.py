"""The one table of types: what a Spark column becomes in a TFRecord, in numpy and in TensorFlow.

A type that is not in the table, or that would lose something on the way, is refused by column name;
`Feature.cast` is how a user opts in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["DTYPES", "LOSSY_TYPES", "DType", "DTypeInfo", "ExampleKind"]


class ExampleKind(StrEnum):
    """The three lists that a `tf.train.Feature` can hold."""

    INT64 = "int64"
    FLOAT = "float"
    BYTES = "bytes"


class DType(StrEnum):
    """Element types of features, by the names that TensorFlow and numpy use."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT32 = "float32"
    STRING = "string"
    BINARY = "binary"
    DATE = "date"
    TIMESTAMP = "timestamp"


@dataclass(frozen=True, kw_only=True)
class DTypeInfo:
    """One row of the table.

    Attributes:
        spark: Spark's `simpleString` of the element type that is written.
        example: the list of `tf.train.Feature` that holds it.
        tensor: TensorFlow's name of the dtype that the model sees.
    """

    spark: str
    example: ExampleKind
    tensor: str


DTYPES: Final[dict[DType, DTypeInfo]] = {
    DType.BOOL: DTypeInfo(spark="boolean", example=ExampleKind.INT64, tensor="bool"),
    DType.INT8: DTypeInfo(spark="tinyint", example=ExampleKind.INT64, tensor="int8"),
    DType.INT16: DTypeInfo(spark="smallint", example=ExampleKind.INT64, tensor="int16"),
    DType.INT32: DTypeInfo(spark="int", example=ExampleKind.INT64, tensor="int32"),
    DType.INT64: DTypeInfo(spark="bigint", example=ExampleKind.INT64, tensor="int64"),
    DType.FLOAT32: DTypeInfo(spark="float", example=ExampleKind.FLOAT, tensor="float32"),
    DType.STRING: DTypeInfo(spark="string", example=ExampleKind.BYTES, tensor="string"),
    DType.BINARY: DTypeInfo(spark="binary", example=ExampleKind.BYTES, tensor="string"),
    # days since the epoch and microseconds since the epoch: what Spark itself stores
    DType.DATE: DTypeInfo(spark="date", example=ExampleKind.INT64, tensor="int64"),
    DType.TIMESTAMP: DTypeInfo(spark="timestamp", example=ExampleKind.INT64, tensor="int64"),
}

#: Spark types that a TFRecord cannot hold as they are, with what `prepare` does about it.
#: ``double`` is the only one that is cast without being asked (recorded in the spec, said once).
LOSSY_TYPES: Final[dict[str, str]] = {
    "double": "float",
    "decimal": "accept the loss with Feature(..., cast='float'), or scale it to a bigint",
}

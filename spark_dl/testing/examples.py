"""TFRecords of `tf.train.Example` in plain numpy: what other writers and readers are held against.

Nothing here comes from TensorFlow, protobuf or the connector; it is slow and complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Values", "decode_records", "encode_records"]

#: The values of a feature: a list of bytes, or an array of float32 or int64 ``[values]``.
Values: TypeAlias = list[bytes] | npt.NDArray[np.float32] | npt.NDArray[np.int64]

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_DELIMITED: Final = 2
_FIXED_32: Final = 5
_VARINT: Final = 0
_MASK_DELTA: Final = 0xA282EAD8
_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli's, bits reversed (RFC 3720, appendix B.4)


def encode_records(records: Sequence[Mapping[str, Values]]) -> bytes:
    """Return a TFRecord file.

    Args:
        records: of each record, feature name → bytes, float32 ``[values]`` or int64 ``[values]``.

    Example:
        >>> len(encode_records([{"x": np.array([1.5], np.float32)}]))
        33
    """
    return b"".join(_frame(_example(record)) for record in records)


def decode_records(file: bytes) -> list[dict[str, Values]]:
    """Return the features of each record of a TFRecord file.

    Args:
        file: its bytes, not compressed.

    Raises:
        ValueError: a checksum does not hold or a record is cut off.

    Example:
        >>> decode_records(encode_records([{"n": np.array([1, -2])}]))[0]["n"].tolist()
        [1, -2]
    """
    return [_features(record) for record in _unframe(file)]


def _crc_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE: Final = _crc_table()


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = int(_TABLE[(crc ^ byte) & 0xFF]) ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA & 0xFFFFFFFF).to_bytes(4, "little")


def _frame(record: bytes) -> bytes:
    length = len(record).to_bytes(8, "little")
    return length + _masked_crc(length) + record + _masked_crc(record)


def _unframe(file: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(file):
        length, record = file[at : at + 8], b""
        size = int.from_bytes(length, "little")
        if file[at + 8 : at + 12] == _masked_crc(length):
            record = file[at + 12 : at + 12 + size]
        if len(record) != size or file[at + 12 + size : at + 16 + size] != _masked_crc(record):
            msg = f"the record at byte {at} is damaged or cut off"
            raise ValueError(msg)
        yield record
        at += 16 + size


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    groups = []
    while value > 0x7F:  # noqa: PLR2004  seven bits a byte
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _DELIMITED) + _varint(len(content)) + content


def _example(features: Mapping[str, Values]) -> bytes:
    entries = (
        _field(1, _field(1, name.encode()) + _field(2, _feature(values)))
        for name, values in features.items()
    )
    return _field(1, b"".join(entries))


def _feature(values: Values) -> bytes:
    if isinstance(values, list):
        return _field(_BYTES_LIST, b"".join(_field(1, value) for value in values))
    if values.dtype.kind == "f":
        packed, number = values.astype("<f4").tobytes(), _FLOAT_LIST
    else:
        packed, number = b"".join(map(_varint, values.tolist())), _INT64_LIST
    return _field(number, _field(1, packed) if packed else b"")


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, wire type and content of each field; a varint's content is its bytes."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _DELIMITED:
            size, at = _read_varint(message, at)
        elif kind == _FIXED_32:
            size = 4
        elif kind == _VARINT:
            size = _read_varint(message, at)[1] - at
        else:
            msg = f"wire type {kind} is none of an Example"
            raise ValueError(msg)
        if at + size > len(message):
            msg = f"a field of {size} bytes is cut off"
            raise ValueError(msg)
        yield number, kind, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004  the last byte of a varint
            return value, at


def _features(example: bytes) -> dict[str, Values]:
    found: dict[str, Values] = {}
    for _, _, features in _fields(example):
        for _, _, entry in _fields(features):
            parts = {number: content for number, _, content in _fields(entry)}
            found[parts.get(1, b"").decode()] = _values(parts.get(2, b""))
    return found


def _values(feature: bytes) -> Values:
    ((number, _, content),) = _fields(feature)
    if number == _BYTES_LIST:
        return [value for _, _, value in _fields(content)]
    packed = b"".join(value for _, _, value in _fields(content))
    if number == _FLOAT_LIST:
        return np.frombuffer(packed, "<f4")
    return _integers(np.frombuffer(packed, np.uint8))


def _integers(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Decode varints, all at once: groups of seven bits, added up where a number begins."""
    if not len(packed):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(packed < 0x80)  # noqa: PLR2004  the last byte of a varint
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(packed)) - np.repeat(starts, ends - starts + 1)
    groups = (packed & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(groups, starts).view(np.int64)

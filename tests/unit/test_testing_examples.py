"""The numpy oracle of TFRecords, against files that TensorFlow wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spark_dl.testing import decode_records, encode_records

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(("name", "records"), [("types", 2), ("packed", 1)])
def test_tensorflows_files_are_read_and_written_again_byte_for_byte(name, records):
    file = (GOLDEN / f"connector_{name}.tfrecord").read_bytes()
    found = decode_records(file)
    assert len(found) == records
    assert encode_records(found) == file


def test_values_are_those_that_were_written():
    first, second = decode_records((GOLDEN / "connector_types.tfrecord").read_bytes())
    assert first["e_bigint"].tolist() == [-(2**63)]
    assert first["i_float"].tolist() == [float("-inf")]
    assert first["k_binary"] == [b"\x00\xff\xfe"]
    assert first["l_bigints"].tolist() == []
    assert second["l_bigints"].tolist() == [0, 127, 128, -1, 2**62]
    assert second["n_strings"] == [b"", b"a", "日本".encode()]
    assert second["m_floats"].dtype == np.float32


def test_damage_is_an_error():
    file = encode_records([{"x": np.array([1.5, 2.5], np.float32)}, {"t": [b"text"]}])
    for at in range(len(file)):
        changed = bytearray(file)
        changed[at] ^= 0x10
        with pytest.raises(ValueError, match="damaged or cut off"):
            decode_records(bytes(changed))
    with pytest.raises(ValueError, match="damaged or cut off"):
        decode_records(file[:-1])

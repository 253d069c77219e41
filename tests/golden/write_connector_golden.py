"""Write `connector_types.tfrecord` with TensorFlow, the independent writer of the tests.

`connector_packed.tfrecord` holds the same two rows in one record. The files are frozen: the tests
of both sides read them and the connector must write the same bytes.
Run: `python tests/golden/write_connector_golden.py`.
"""

from pathlib import Path

import tensorflow as tf

GOLDEN = Path(__file__).parent / "connector_types.tfrecord"
PACKED = Path(__file__).parent / "connector_packed.tfrecord"

ARRAYS = "lmno"  # first letters of the columns that are arrays
# (kind, values) of each feature: the smallest, the largest and an ordinary value of each type.
ROWS = [
    {
        "a_boolean": ("int64", [1]),
        "b_tinyint": ("int64", [-128]),
        "c_smallint": ("int64", [-32768]),
        "d_int": ("int64", [-(2**31)]),
        "e_bigint": ("int64", [-(2**63)]),
        "f_date": ("int64", [-719162]),
        "g_timestamp": ("int64", [-62135596800000000]),
        "h_timestamp_ntz": ("int64", [-1]),
        "i_float": ("float", [float("-inf")]),
        "j_string": ("bytes", [b""]),
        "k_binary": ("bytes", [b"\x00\xff\xfe"]),
        "l_bigints": ("int64", []),
        "m_floats": ("float", []),
        "n_strings": ("bytes", []),
        "o_booleans": ("int64", [0, 1, 1]),
    },
    {
        "a_boolean": ("int64", [0]),
        "b_tinyint": ("int64", [127]),
        "c_smallint": ("int64", [32767]),
        "d_int": ("int64", [2**31 - 1]),
        "e_bigint": ("int64", [2**63 - 1]),
        "f_date": ("int64", [20778]),
        "g_timestamp": ("int64", [1795219200123456]),
        "h_timestamp_ntz": ("int64", [0]),
        "i_float": ("float", [1.5]),
        "j_string": ("bytes", ["Zürich ✓".encode()]),
        "k_binary": ("bytes", [b""]),
        "l_bigints": ("int64", [0, 127, 128, -1, 2**62]),
        "m_floats": ("float", [0.0, -0.0, 1e-45, 3.4028234663852886e38]),
        "n_strings": ("bytes", [b"", b"a", "日本".encode()]),
        "o_booleans": ("int64", []),
    },
]


def feature(kind: str, values: list) -> tf.train.Feature:
    lists = {
        "int64": lambda: tf.train.Feature(int64_list=tf.train.Int64List(value=values)),
        "float": lambda: tf.train.Feature(float_list=tf.train.FloatList(value=values)),
        "bytes": lambda: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)),
    }
    return lists[kind]()


def packed(rows: list[dict]) -> dict:
    """Return the features of several rows: their values in a row, and where each row's begin."""
    features = {}
    for name, (kind, _) in rows[0].items():
        values = [row[name][1] for row in rows]
        features[name] = (kind, [value for row in values for value in row])
        if name[0] in ARRAYS:
            splits = [sum(map(len, values[:count])) for count in range(len(values) + 1)]
            features[f"{name}/row_splits"] = ("int64", splits)
    return features


def serialized(record: dict) -> bytes:
    """Return an Example whose features lie in the order of `record`; protobuf sorts otherwise."""
    features = b"".join(
        tf.train.Features(feature={name: feature(*value)}).SerializeToString()
        for name, value in record.items()
    )
    # an Example is one field 1 of bytes, as is a list of one value
    return tf.train.BytesList(value=[features]).SerializeToString()


def write(path: Path, records: list[dict]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(serialized(record))


def main() -> None:
    write(GOLDEN, ROWS)
    write(PACKED, [packed(ROWS)])


if __name__ == "__main__":
    main()

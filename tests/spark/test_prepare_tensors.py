"""TensorFlow reads from the shards what Spark wrote into them."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from spark_dl.schema import Feature
from spark_dl.schema.tensors import decode, example_features, packed_rows
from spark_dl.shards.prepare import write_dataset

pytestmark = [
    pytest.mark.spark,
    # Keras' optional imports and TensorFlow's protobufs warn of their own affairs
    pytest.mark.filterwarnings("default:::keras"),
    pytest.mark.filterwarnings("default:::tensorflow"),
    # pyspark leaves the sockets of a collect to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SCHEMA = (
    "flag boolean, tiny tinyint, small smallint, whole int, big bigint, real float, "
    "text string, raw binary, day date, at timestamp, grid array<double>, words array<string>, "
    "y int, w float"
)


def row(n):
    return (
        n % 2 == 0,
        n - 5,
        -n,
        n * 2**20,
        -n * 2**40,
        n / 4,
        f"ä{n}",
        bytes([255, n]),
        dt.date(1970, 1, 1) + dt.timedelta(days=n - 3),
        dt.datetime(1969, 12, 31, 23, 59, 59) + dt.timedelta(seconds=n),  # noqa: DTZ001
        [float(n + k) for k in range(6)],
        [f"w{k}" for k in range(n % 3)],
        n,
        n + 0.5,
    )


def expected(n):
    return {
        "flag": n % 2 == 0,
        "tiny": n - 5,
        "small": -n,
        "whole": n * 2**20,
        "big": -n * 2**40,
        "real": n / 4,
        "text": f"ä{n}".encode(),
        "raw": bytes([255, n]),
        "day": n - 3,
        "at": (n - 1) * 10**6,
        "grid": np.arange(n, n + 6, dtype=np.float32).reshape(2, 3, 1).tolist(),
        "words": [f"w{k}".encode() for k in range(n % 3)],
    }


@pytest.mark.parametrize("rows_per_record", [1, 7, None])
def test_tensorflow_reads_the_same_values(spark, tmp_path, rows_per_record):
    import tensorflow as tf

    df = spark.createDataFrame([row(n) for n in range(30)], SCHEMA)
    features = {name: name for name in expected(0)} | {"grid": Feature("grid", shape=(2, 3, 1))}
    dataset = write_dataset(
        df,
        features=features,
        label="y",
        weight="w",
        path=str(tmp_path),
        splits={"a": 1.0},
        seed=3,
        rows_per_record=rows_per_record,
    )
    packed = dataset.manifest.rows_per_record
    assert packed == rows_per_record or (rows_per_record is None and packed > 30)
    records = list(tf.data.TFRecordDataset(dataset.shard_paths("a")).as_numpy_iterator())
    assert dataset.manifest.totals["a"] == 30
    if packed == 1:
        assert len(records) == 30
        parsed = tf.io.parse_example(records, example_features(dataset.spec))
    else:
        assert len(records) < 30
        parsed = packed_rows(records, np.arange(30), dataset.spec)
    values, label, weight = decode(parsed, dataset.spec)
    assert sorted(label.numpy().tolist()) == list(range(30))
    for at, n in enumerate(label.numpy().tolist()):
        assert weight[at].numpy() == n + 0.5
        for name, value in expected(n).items():
            found = values[name][at].numpy()
            if name == "words":
                assert found[: len(value)].tolist() == value
                assert set(found[len(value) :].tolist()) <= {b""}
            else:
                assert (
                    found.tolist() if isinstance(found, np.generic | np.ndarray) else found
                ) == value, name

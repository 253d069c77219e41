"""The whole flow in one application: ``whole_flow.py URI [BACKEND [SECONDS]]``.

Everything lies below the folder. A training for which SECONDS are given goes on for as long, with a
checkpoint at its end. Where Hadoop has tokens for a container, each training process writes below
the folder where they are.
"""

import functools
import json
import logging
import os
import sys
import time

from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

import spark_dl

ROWS = 200
TOKENS = "HADOOP_TOKEN_FILE_LOCATION"


def build(spec, params):
    import keras

    inputs = keras.Input(spec["pixels"].shape, name="pixels")
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(inputs))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return model


def last(root, seconds, rank):
    import keras

    from spark_dl.storage import Storage

    if file := os.environ.get(TOKENS):
        told = {"file": file, "read": os.access(file, os.R_OK)}
        Storage(root).write_atomic(f"{root}/tokens-{rank.rank}.json", json.dumps(told))

    began = time.monotonic()

    def wait(epoch, logs):
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    return keras.callbacks.LambdaCallback(on_epoch_end=wait)


def where_ours_is(batches):
    import pyarrow as pa

    import spark_dl

    for _ in batches:
        yield pa.RecordBatch.from_pydict({"file": [spark_dl.__file__]})


def main(root, backend="auto", seconds="0"):
    spark = SparkSession.builder.getOrCreate()
    executors = spark.range(1).mapInArrow(where_ours_is, "file string").first().file
    pixels = sf.expr("transform(sequence(0, 15), i -> cast((id * 7 + i) % 17 as float))")
    rows = spark.range(ROWS).select(
        "id", pixels.alias("pixels"), (sf.col("id") % 10).alias("digit")
    )
    rows.write.parquet(f"{root}/table")
    table = spark.read.parquet(f"{root}/table")
    feature = spark_dl.Feature("pixels", shape=(16,))
    dataset = spark_dl.prepare(
        table, features={"pixels": feature}, label="digit", id="id", path=f"{root}/dataset"
    )
    run = spark_dl.train(
        build,
        dataset,
        callbacks=functools.partial(last, root, float(seconds)),
        backend=backend,
        num_workers=2,
        epochs=2,
        global_batch_size=16,
        runs=f"{root}/runs",
    )
    spark_dl.predict(table, run.model_path).write.parquet(f"{root}/predictions")
    scored = spark.read.parquet(f"{root}/predictions").count()
    packages = [spark_dl.__file__, executors]
    told = {"run": run.path, "model": run.model_path, "rows": scored, "packages": packages}
    print(json.dumps(told))
    spark.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    main(*sys.argv[1:])

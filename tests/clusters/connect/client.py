"""What a user runs on a machine without Java: prepare, train, predict over Spark Connect.

``python client.py sc://… SHARED_FOLDER train,fail,tfos,interrupt`` prints one JSON object a step.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from pyspark.sql import SparkSession

import spark_dl
from spark_dl.errors import ConfigError, TrainingFailedError
from spark_dl.session import ship_code


def model_fn(spec, params):
    import keras

    inputs = {entry.name: keras.Input(entry.shape, name=entry.name) for entry in spec.features}
    merged = keras.layers.Concatenate()([keras.layers.Flatten()(i) for i in inputs.values()])
    model = keras.Model(inputs, keras.layers.Dense(1, name="score")(merged))
    model.compile(keras.optimizers.SGD(params["rate"]), "mse")
    return model


def failing_model_fn(spec, params):
    if json.loads(os.environ["TF_CONFIG"])["task"]["type"] == "worker":
        message = f"boom at {time.time()}"
        raise ValueError(message)
    return model_fn(spec, params)


def where_ours_is(batches):
    import pyarrow as pa

    import spark_dl

    for _ in batches:
        yield pa.RecordBatch.from_pydict({"file": [spark_dl.__file__]})


def say(step: str, **facts: object) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)


def main(remote: str, folder: str, steps: list[str]) -> None:
    spark = SparkSession.builder.remote(remote).getOrCreate()
    ship_code(spark)
    take(steps, spark, folder)
    spark.stop()


def take(steps: list[str], spark: SparkSession, folder: str) -> None:
    """Take the steps in a session that has the code."""
    (row,) = spark.range(1).mapInArrow(where_ours_is, "file string").collect()
    say("ship", file=row.file)
    frame = spark.range(400).selectExpr(
        "id", "cast(id % 7 as float) a", "cast(id % 5 as float) b", "cast(id % 7 as float) y"
    )
    table = f"{folder}/table"
    frame.write.format("delta").mode("overwrite").save(table)
    frame = spark.read.format("delta").load(table)
    dataset = spark_dl.prepare(
        frame, features=["a", "b"], label="y", id="id", path=f"{folder}/dataset", seed=3
    )
    say("prepare", rows=dict(dataset.manifest.totals))

    def train(function, **settings):
        return spark_dl.train(
            function,
            dataset,
            params={"rate": 0.01},
            global_batch_size=16,
            runs=f"{folder}/runs",
            **{"num_workers": 2, "epochs": 3, "tensorboard": False, **settings},
        )

    if "train" in steps:
        run = train(model_fn, run_id="first")
        say("train", loss=run.history["loss"], model=run.model_path)
        scored = spark_dl.predict(frame, run.model_path, scoring_id="s1")
        scored.write.format("delta").mode("overwrite").save(f"{folder}/scored")
        back = spark.read.format("delta").load(f"{folder}/scored")
        say("predict", rows=int(back.count()), columns=back.columns)
    if "fail" in steps:
        try:
            train(failing_model_fn, run_id="failing")
        except TrainingFailedError as error:
            happened = float(error.failures[0].message.rpartition(" ")[2])
            say("fail", text=str(error), seconds=time.time() - happened)
    if "tfos" in steps:
        try:
            train(model_fn, run_id="tfos", backend="tensorflowonspark")
        except ConfigError as error:
            say("tfos", text=str(error))
    if "interrupt" in steps:
        say("interrupt")
        try:
            train(model_fn, run_id="interrupted", epochs=100_000, tensorboard=True)
        except KeyboardInterrupt:
            # the slots are free again: a barrier stage of both starts at once
            say("interrupted", loss=train(model_fn, run_id="after").history["loss"])
    say("jvm", java=os.environ.get("JAVA_HOME", ""), py4j="py4j" in sys.modules)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    main(sys.argv[1], sys.argv[2], sys.argv[3].split(","))

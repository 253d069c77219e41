"""What a Spark with speculation does to scoring and to training.

``python speculating_job.py MASTER FOLDER score`` scores a table of which one task stands still in
its first attempt, ``… train`` trains with a rank that goes on long after the other; both print what
came of it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator  # noqa: TC003 - Spark reads annotations
from typing import TYPE_CHECKING

import pyarrow as pa  # noqa: TC002 - as above
from pyspark.sql import functions as sf

import spark_dl
from spark_dl.config import OutputConfig
from spark_dl.inference import predict
from spark_dl.schema import FeatureSpec, SpecEntry
from spark_dl.session import embedded_session
from spark_dl.storage import JobStatus
from spark_dl.tables import write_table
from spark_dl.training.export import export_model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 40
PARTITIONS = 4
#: Many times what Spark waits before it starts a second attempt.
LINGER_S = 6.0
CONF = {
    "spark.speculation": "true",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.multiplier": "1.5",
    "spark.executor.cores": "1",
}


def model(folder: str) -> str:
    import keras

    number = keras.Input((), name="a")
    score = keras.layers.Rescaling(2.0)(keras.layers.Reshape((1,))(number))
    spec = FeatureSpec(entries=(SpecEntry(name="a", column="a", dtype="float32"),))
    return export_model(keras.Model({"a": number}, score), spec, f"{folder}/1", run_id="r")


def score(spark: SparkSession, folder: str) -> dict[str, object]:
    def slow_once(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        for batch in batches:
            if batch.num_rows and context.partitionId() == PARTITIONS - 1:
                with open(os.path.join(folder, f"attempt-{context.attemptNumber()}"), "w"):
                    pass
                if context.attemptNumber() == 0:
                    yield batch.slice(0, 1)  # some of its rows are scored already
                    threading.Event().wait(600)  # Spark kills it long before
            yield batch

    path = model(folder)
    rows = spark.range(0, ROWS, 1, PARTITIONS).selectExpr("id", "float(id) a")
    rows = rows.mapInArrow(slow_once, "id long, a float")
    output = OutputConfig(path=f"{folder}/out")
    write_table(predict(rows, path, scoring_id="s"), output, scoring_id="s")
    table = spark.read.format("delta").load(f"{folder}/out")
    found = table.orderBy("id").select("id", "prediction").collect()
    last = table.where(f"id >= {ROWS - ROWS // PARTITIONS}").select(sf.input_file_name())
    names = sorted(name for name in os.listdir(folder) if name.startswith("attempt-"))
    return {
        "attempts": [int(name.removeprefix("attempt-")) for name in names],
        "count": ROWS,
        "rows": [list(row) for row in found],
        "files_of_the_partition": last.distinct().count(),
    }


def linger(rank):
    import keras

    def wait(logs=None):
        with open(os.path.join(rank.params["folder"], f"rank-{rank.rank}-{os.getpid()}"), "w"):
            pass
        if rank.is_chief:
            threading.Event().wait(LINGER_S)

    return keras.callbacks.LambdaCallback(on_train_end=wait)


def linear(spec, params):
    import keras

    a = keras.Input((), name="a")
    model = keras.Model({"a": a}, keras.layers.Dense(1)(keras.layers.Reshape((1,))(a)))
    model.compile(optimizer="sgd", loss="mse")
    return model


def train(spark: SparkSession, folder: str) -> dict[str, object]:
    rows = spark.range(ROWS).selectExpr("float(id) / 40 a", "float(id) / 20 y")
    dataset = spark_dl.prepare(
        rows, features=["a"], label="y", path=f"{folder}/dataset", splits={"train": 1.0}
    )
    run = spark_dl.train(
        linear,
        dataset,
        params={"folder": folder},
        callbacks=linger,
        num_workers=2,
        global_batch_size=8,
        runs=f"{folder}/runs",
        tensorboard=False,
    )
    ranks = [name.split("-")[1] for name in os.listdir(folder) if name.startswith("rank-")]
    return {"ranks": sorted(ranks), "attempt": JobStatus.read(f"{run.path}/status.json").attempt}


def main(master: str, folder: str, what: str) -> None:
    with embedded_session(master, conf=CONF) as spark:
        print(json.dumps({"score": score, "train": train}[what](spark, folder)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

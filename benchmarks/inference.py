"""How fast a table is scored: ours beside Spark's own ways to run a model, on the same rows.

The model is light (64 floats to 10 numbers), so that what is measured is the way there and back.
``python benchmarks/inference.py [--json] [--quick]``
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator  # noqa: TC003 - Spark reads annotations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as sf

from spark_dl.inference import predict
from spark_dl.schema import FeatureSpec, SpecEntry
from spark_dl.session import embedded_session
from spark_dl.training.export import export_model

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

WIDTH = 64
OUTPUTS = 10
TEXT_COLUMNS = 20
ROWS, QUICK_ROWS = 1_000_000, 20_000
ROUNDS, QUICK_ROUNDS = 5, 1
BATCH_ROWS = 8192
# of the issue on inference; the figures beside are printed only
GOALS = {
    ("array", "predict_batch_udf"): 2.0,
    ("array", "no-op arrow_udf"): 0.9,
    ("array + 20 string columns", "predict_batch_udf"): 1.3,
}


def write_model(folder: str) -> str:
    """Write the model that all sides run."""
    import keras

    keras.utils.set_random_seed(1)
    spec = FeatureSpec(entries=(SpecEntry(name="x", column="x", dtype="float32", shape=(WIDTH,)),))
    x = keras.Input((WIDTH,), name="x")
    model = keras.Model({"x": x}, keras.layers.Dense(OUTPUTS)(x))
    return export_model(model, spec, os.path.join(folder, "model"), run_id="benchmark")


def table(spark: SparkSession, folder: str, rows: int, *, texts: int) -> DataFrame:
    """Write the rows and return them cached, so that reading them costs all sides the same."""
    path = os.path.join(folder, f"rows-{texts}")
    numbers = sf.array(*[(sf.rand(seed=i)).cast("float") for i in range(WIDTH)]).alias("x")
    words = [sf.concat(sf.lit(f"text {i} "), sf.col("id")).alias(f"t{i}") for i in range(texts)]
    spark.range(0, rows, 1, 8).select("id", numbers, *words).write.parquet(path)
    cached = spark.read.parquet(path).cache()
    cached.count()
    return cached


def batch_udf(path: str) -> Callable[..., Any]:
    """Spark's `predict_batch_udf` on the same SavedModel."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    def make() -> Callable[[np.ndarray], np.ndarray]:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        model = tf.saved_model.load(path)
        signature = model.signatures["serving_default"]

        def run(x: np.ndarray) -> np.ndarray:
            values = signature(x=tf.constant(x, tf.float32)).values()
            # the closure keeps the model: a signature alone does not keep its variables
            return next(iter(values)).numpy() if model is not None else x

        return run

    return predict_batch_udf(
        make,
        return_type=ArrayType(FloatType()),
        batch_size=BATCH_ROWS,
        input_tensor_shapes=[[WIDTH]],
    )


def no_op() -> Callable[..., Any]:
    """An `arrow_udf` that gives back ten zeros a row: the way there and back alone."""

    def zeros(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for column in batches:
            flat = pa.array(np.zeros(len(column) * OUTPUTS, np.float32))
            offsets = pa.array(np.arange(len(column) + 1, dtype=np.int32) * OUTPUTS)
            yield pa.ListArray.from_arrays(offsets, flat)

    return sf.arrow_udf(zeros, returnType="array<float>")


def seconds(df: DataFrame) -> float:
    """Return the seconds that it takes to compute all of a DataFrame."""
    started = time.perf_counter()
    df.write.format("noop").mode("overwrite").save()
    return time.perf_counter() - started


def measure(sides: dict[str, DataFrame], rounds: int) -> dict[str, list[float]]:
    """Run the sides in turns, after one round that warms them all."""
    for df in sides.values():
        seconds(df)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, df in sides.items():
            times[name].append(seconds(df))
    return times


def lines(work: str, rows: int, times: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    """Return one line for each side beside ours."""
    ours = rows / min(times["ours"])
    for name, taken in times.items():
        if name == "ours":
            continue
        theirs = rows / min(taken)
        line: dict[str, Any] = {
            "bench": "inference",
            "work": f"light model, {work}",
            "unit": "rows/s",
            "ours": round(ours),
            "ours_median": round(rows / statistics.median(times["ours"])),
            "beside": name,
            "theirs": round(theirs),
            "theirs_median": round(rows / statistics.median(taken)),
            "ratio": round(ours / theirs, 3),
        }
        goal = GOALS.get((work, name))
        if goal is not None:
            line |= {"goal": goal, "ok": ours / theirs >= goal}
        yield line


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="small: only shows that it runs")
    options = parser.parse_args()
    rows = QUICK_ROWS if options.quick else ROWS
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    found = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="spark-dl-bench-"))
        model = write_model(folder)
        conf = {"spark.driver.memory": "3g", "spark.sql.execution.arrow.maxRecordsPerBatch": "8192"}
        spark = stack.enter_context(embedded_session("local[2]", conf=conf))
        spark.sparkContext.setLogLevel("ERROR")
        works = {"array": 0, f"array + {TEXT_COLUMNS} string columns": TEXT_COLUMNS}
        for work, texts in works.items():
            df = table(spark, folder, rows if texts == 0 else rows // 4, texts=texts)
            sides = {
                "ours": predict(df, model, batch_size=BATCH_ROWS),
                "predict_batch_udf": df.withColumn("prediction", batch_udf(model)("x")),
                "no-op arrow_udf": df.withColumn("prediction", no_op()("x")),
            }
            found += lines(work, rows if texts == 0 else rows // 4, measure(sides, rounds))
            df.unpersist(blocking=True)
    report(found, as_json=options.json)


def report(found: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print the lines, as a table or as JSON."""
    machine = {"cores": os.cpu_count(), "platform": platform.platform()}
    packages = ("pyspark", "tensorflow", "keras", "pyarrow", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    if as_json:
        for line in found:
            print(json.dumps(line))
        print(json.dumps({"bench": "inference", "machine": machine, "versions": versions}))
        return
    for line in found:
        goal = f"  goal {line['goal']} {'ok' if line['ok'] else 'MISSED'}" if "goal" in line else ""
        print(
            f"{line['work']:<42} ours {line['ours']:>10,} rows/s  {line['beside']:<18} "
            f"{line['theirs']:>10,}  ratio {line['ratio']:.2f}{goal}"
        )
    print(f"python {sys.version.split()[0]}, {machine}, {versions}")


if __name__ == "__main__":
    main()

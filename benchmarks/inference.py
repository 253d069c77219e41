"""How fast a table is scored: ours beside Spark's own ways to run a model, on the same rows.

``python benchmarks/inference.py [--json] [--quick] [--only WORK…]``
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator  # noqa: TC003 - Spark reads annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as sf

from spark_dl.inference import predict
from spark_dl.schema import FeatureSpec, SpecEntry
from spark_dl.session import embedded_session
from spark_dl.training.export import export_model

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

OUTPUTS = 10
CORES, QUICK_CORES = 2, 1
BATCH_ROWS = 8192
#: Batch sizes that `predict_batch_udf` is tried with; the best one counts.
PEER_BATCHES, QUICK_PEER_BATCHES = (1024, 8192), (1024,)
ROUNDS, QUICK_ROUNDS = 5, 1
QUICK_ROWS, QUICK_WORKS = 4_000, ("CNN 32x32x3", "memory")
HAS_ARROW_UDF = hasattr(sf, "arrow_udf")
NO_OP = "no-op arrow_udf" if HAS_ARROW_UDF else "no-op pandas_udf"
PEER, NUMPY = "predict_batch_udf", "numpy in one process"
ARROW_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
MAP = "mapInArrow, all columns across"
MEMORY_LIMIT_MB = 300


@dataclass(frozen=True)
class Work:
    """One line of the table.

    Attributes:
        shape: shape of the input; empty for one text.
        texts: text columns that are kept beside it.
        rows: rows of the table.
        goals: least ratio to each side beside ours, on Spark that has `arrow_udf`; what has none
            is printed only.
    """

    shape: tuple[int, ...]
    rows: int
    goals: dict[str, float]
    texts: int = 0

    @property
    def size(self) -> int:
        """Numbers of a row."""
        return int(np.prod(self.shape))


WORKS = {
    "dense 64": Work((64,), 1_000_000, {NO_OP: 0.9, PEER: 2.0}),
    "dense 64 + 20 string columns": Work((64,), 250_000, {PEER: 1.3}, texts=20),
    "dense 784": Work((784,), 100_000, {}),
    "CNN 32x32x3": Work((32, 32, 3), 10_000, {NUMPY: 0.85}),
    "text with a string lookup": Work((), 500_000, {}),
}


def build(work: Work) -> Any:  # noqa: ANN401 - Keras'
    """Return the model of a line."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    if not work.shape:
        x = keras.Input((), name="x", dtype="string")
        known = [f"word {i}" for i in range(100)]
        hidden = layers.Embedding(101, 16)(layers.StringLookup(vocabulary=known)(x))
    elif len(work.shape) > 1:
        x = keras.Input(work.shape, name="x")
        hidden = layers.MaxPooling2D()(layers.Conv2D(16, 3, activation="relu")(x))
        hidden = layers.Flatten()(layers.Conv2D(32, 3, activation="relu")(hidden))
    else:
        x = keras.Input(work.shape, name="x")
        hidden = x
    return keras.Model({"x": x}, layers.Dense(OUTPUTS)(hidden))


def write_model(work: Work, folder: str) -> str:
    """Write the model that all sides run."""
    dtype = "float32" if work.shape else "string"
    entry = SpecEntry(name="x", column="x", dtype=dtype, shape=work.shape)
    spec = FeatureSpec(entries=(entry,))
    return export_model(build(work), spec, os.path.join(folder, "model"), run_id="benchmark")


def table(spark: SparkSession, work: Work, folder: str, rows: int) -> DataFrame:
    """Write the rows and return them cached, so that reading them costs all sides the same."""
    if work.shape:
        places = sf.sequence(sf.lit(1), sf.lit(work.size))
        thousandths = sf.transform(
            places, lambda i: sf.pmod(sf.hash(sf.col("id"), i), sf.lit(1000))
        )
        value = sf.transform(thousandths, lambda n: n / 1000).cast("array<float>")
    else:
        value = sf.concat(sf.lit("word "), (sf.col("id") % 150).cast("string"))
    words = [
        sf.concat(sf.lit(f"text {i} "), sf.col("id")).alias(f"t{i}") for i in range(work.texts)
    ]
    spark.range(0, rows, 1, 8).select("id", value.alias("x"), *words).write.parquet(folder)
    cached = spark.read.parquet(folder).cache()
    cached.count()
    return cached


def batch_udf(work: Work, path: str, batch_size: int) -> Callable[..., Any]:
    """Spark's `predict_batch_udf` on the same SavedModel."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    def make() -> Callable[[np.ndarray], np.ndarray]:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        model = tf.saved_model.load(path)
        signature = model.signatures["serving_default"]

        def run(x: np.ndarray) -> np.ndarray:
            values = signature(x=tf.constant(x, tf.float32 if x.dtype != object else tf.string))
            # the closure keeps the model: a signature alone does not keep its variables
            return next(iter(values.values())).numpy() if model is not None else x

        return run

    return predict_batch_udf(
        make,
        return_type=ArrayType(FloatType()),
        batch_size=batch_size,
        input_tensor_shapes=[list(work.shape)] if work.shape else None,
    )


def no_op() -> Callable[..., Any]:
    """A function that gives back ten zeros a row: the way there and back alone."""
    if not HAS_ARROW_UDF:
        return _no_op_pandas()

    def zeros(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for column in batches:
            flat = pa.array(np.zeros(len(column) * OUTPUTS, np.float32))
            offsets = pa.array(np.arange(len(column) + 1, dtype=np.int32) * OUTPUTS)
            yield pa.ListArray.from_arrays(offsets, flat)

    return sf.arrow_udf(zeros, returnType="array<float>")


def _no_op_pandas() -> Callable[..., Any]:
    def zeros(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for column in batches:
            yield pd.Series(list(np.zeros((len(column), OUTPUTS), np.float32)))

    return sf.pandas_udf(zeros, returnType="array<float>")


def map_in_arrow(df: DataFrame, work: Work, path: str) -> DataFrame:
    """The same SavedModel by `mapInArrow`, which sends every column there and back."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        kept = tf.__dict__.setdefault("benchmark_models", {})  # of the process, not of a task
        if path not in kept:
            kept[path] = tf.saved_model.load(path)
        signature = kept[path].signatures["serving_default"]
        for batch in batches:
            column = batch.column("x")
            values = column.flatten() if work.shape else column
            x = values.to_numpy(zero_copy_only=False).reshape(-1, *work.shape)
            tensor = tf.constant(x, tf.float32 if work.shape else tf.string)
            out = next(iter(signature(x=tensor).values())).numpy()
            offsets = pa.array(np.arange(len(out) + 1, dtype=np.int32) * OUTPUTS)
            scored = pa.ListArray.from_arrays(offsets, pa.array(out.reshape(-1)))
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, scored], [*batch.schema.names, "prediction"]
            )

    schema = ", ".join(f"{name} {kind}" for name, kind in df.dtypes)
    return df.mapInArrow(run, f"{schema}, prediction array<float>")


NUMPY_SCRIPT = """
    import sys, time
    import numpy as np
    import tensorflow as tf

    path, shape, batch, batches, threads = sys.argv[1], eval(sys.argv[2]), *map(int, sys.argv[3:])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = tf.saved_model.load(path)
    run = model.signatures["serving_default"]
    x = np.random.default_rng(1).random((batch, *shape), dtype="float32")
    run(x=tf.constant(x))
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(batches):
            next(iter(run(x=tf.constant(x)).values())).numpy()
        best = max(best, batch * batches / (time.perf_counter() - started))
    print(best)
"""


def numpy_rate(work: Work, path: str, rows: int) -> float:
    """Return the rows/s of the same model on numpy, in one process with as many threads."""
    batch = min(1024, rows)
    command = [sys.executable, "-c", textwrap.dedent(NUMPY_SCRIPT), path, str(work.shape)]
    command += [str(batch), str(max(1, rows // batch)), str(CORES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own script
    return float(done.stdout.split()[-1])


@contextlib.contextmanager
def workers_of(spark: SparkSession, side: str) -> Iterator[None]:
    """Give functions that are made here Python workers of their own.

    Ours tells its workers a few things that make every later task in them cheaper; the others are
    to run as they do without it.
    """
    environment = spark.sparkContext.environment
    environment["BENCHMARK_SIDE"] = side
    yield
    del environment["BENCHMARK_SIDE"]


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


def line(work: str, beside: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return one line of the table, out of rows/s of each round."""
    found: dict[str, Any] = {
        "bench": "inference",
        "work": work,
        "unit": "rows/s",
        "ours": round(max(ours)),
        "ours_median": round(statistics.median(ours)),
        "beside": beside,
        "theirs": round(max(theirs)),
        "theirs_median": round(statistics.median(theirs)),
        "ratio": round(max(ours) / max(theirs), 3),
    }
    goal = WORKS[work].goals.get(beside)
    if goal is None or not HAS_ARROW_UDF:
        return found
    return {**found, "goal": goal, "ok": found["ratio"] >= goal}


def score(
    spark: SparkSession, name: str, folder: str, rows: int, *, quick: bool
) -> Iterator[dict[str, Any]]:
    """Measure one line's sides."""
    work = WORKS[name]
    model = write_model(work, folder)
    df = table(spark, work, os.path.join(folder, "rows"), rows)
    batch = 1024 if len(work.shape) > 1 else BATCH_ROWS
    spark.conf.set(ARROW_ROWS, batch)
    with workers_of(spark, "ours"):
        ours = predict(df, model, batch_size=batch)
    first = seconds(ours)
    with workers_of(spark, NO_OP):
        sides = {"ours": ours, NO_OP: df.withColumn("prediction", no_op()("x"))}
    sizes = QUICK_PEER_BATCHES if quick else PEER_BATCHES
    peers = {f"{PEER} {size}": size for size in sizes}
    for label, size in peers.items():
        with workers_of(spark, PEER):
            sides[label] = df.withColumn("prediction", batch_udf(work, model, size)("x"))
    with workers_of(spark, MAP):
        sides[MAP] = map_in_arrow(df, work, model)
    times = measure(sides, QUICK_ROUNDS if quick else ROUNDS)
    rates = {side: [rows / taken for taken in all_] for side, all_ in times.items()}
    best = max(peers, key=lambda label: max(rates[label]))
    yield line(name, NO_OP, rates["ours"], rates[NO_OP])
    yield line(name, PEER, rates["ours"], rates[best])
    yield line(name, MAP, rates["ours"], rates[MAP])
    if NUMPY in work.goals:
        yield line(name, NUMPY, rates["ours"], [numpy_rate(work, model, rows)])
    yield {
        "bench": "inference",
        "work": f"{name}: second job in the session",
        "unit": "s",
        "ours": round(min(times["ours"]), 3),
        "beside": "first job, which loads the model",
        "theirs": round(first, 3),
        "ratio": round(first / min(times["ours"]), 3),
    }
    df.unpersist(blocking=True)


def memory(spark: SparkSession, folder: str, rows: int) -> dict[str, Any]:
    """Return what one large partition costs a Python worker beside the model and TensorFlow."""
    work = WORKS["dense 64"]
    model = write_model(work, folder)
    df = table(spark, work, os.path.join(folder, "rows"), rows).coalesce(1)
    spark.conf.set(ARROW_ROWS, BATCH_ROWS)

    def resident(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import resource

        for _ in batches:
            pass
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        yield pa.RecordBatch.from_arrays([pa.array([peak])], ["mb"])

    def peak() -> float:
        workers = spark.range(0, CORES, 1, CORES).mapInArrow(resident, "mb double")
        return max(row["mb"] for row in workers.collect())

    seconds(predict(df.limit(1).coalesce(1), model))
    before = peak()
    seconds(predict(df, model, batch_size=BATCH_ROWS))
    grown = peak() - before
    df.unpersist(blocking=True)
    return {
        "bench": "inference",
        "work": f"memory of a Python worker, one partition of {rows} rows",
        "unit": "MB",
        "ours": round(grown),
        "beside": "limit",
        "goal": MEMORY_LIMIT_MB,
        "ok": grown <= MEMORY_LIMIT_MB,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="small: only shows that it runs")
    parser.add_argument("--only", nargs="*", metavar="WORK", help="some of the lines, not all")
    options = parser.parse_args()
    chosen = options.only or (QUICK_WORKS if options.quick else (*WORKS, "memory"))
    cores = QUICK_CORES if options.quick else CORES
    found = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="spark-dl-bench-"))
        # with the compiler that a cluster's JVMs have
        conf = {"spark.driver.memory": "3g", "spark.driver.defaultJavaOptions": ""}
        spark = stack.enter_context(embedded_session(f"local[{cores}]", conf=conf))
        spark.sparkContext.setLogLevel("ERROR")
        for index, name in enumerate(chosen):
            own = os.path.join(folder, str(index))
            os.makedirs(own)
            rows = WORKS["dense 64" if name == "memory" else name].rows
            rows = min(rows, QUICK_ROWS) if options.quick else rows
            if name == "memory":
                found.append(memory(spark, own, rows))
            else:
                found += score(spark, name, own, rows, quick=options.quick)
    report(found, as_json=options.json)


def report(found: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print the lines, as a table or as JSON."""
    machine = {"cores": os.cpu_count(), "platform": platform.platform()}
    packages = ("pyspark", "tensorflow", "keras", "pyarrow", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    if as_json:
        for one in found:
            print(json.dumps(one))
        print(json.dumps({"bench": "inference", "machine": machine, "versions": versions}))
        return
    for one in found:
        goal = f"  goal {one['goal']} {'ok' if one['ok'] else 'MISSED'}" if "goal" in one else ""
        theirs = f"{one['theirs']:>10,}  ratio {one['ratio']:.2f}" if "theirs" in one else ""
        print(
            f"{one['work']:<45} ours {one['ours']:>10,} {one['unit']:<6} "
            f"{one['beside']:<32} {theirs}{goal}"
        )
    print(f"python {sys.version.split()[0]}, {machine}, {versions}")


if __name__ == "__main__":
    main()

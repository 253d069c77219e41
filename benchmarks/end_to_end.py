"""From a table to a table of predictions: prepare, train one epoch, predict; beside the usual ways.

Both of our backends beside TensorFlowOnSpark as its documentation shows (SPARK mode, one item a
call, 90 % of the steps, `TFModel.transform`; with tf_keras, from the extra `bench`), and beside
Keras in one process that reads and writes with pyarrow. Each side is a program of its own on the
same Parquet files, with a Spark of two executors that runs already when its clock starts.
``python benchmarks/end_to_end.py [--json] [--quick] [--work NAME] [--sides NAME ...]``
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pyspark.sql import SparkSession

WORKERS, FILES = 2, 4
CLASSES, HIDDEN = 10, 64
#: rows and floats of a table, and the rows of a step over all workers
WORKS: Final = {"narrow": (200_000, 32, 256), "wide": (40_000, 784, 256)}
QUICK_ROWS, QUICK_WORKS = 2_000, ("narrow",)
SIX_TIMES_AS_FAST = 6.0
#: what TensorFlowOnSpark's examples train of an epoch, so that no worker runs out of rows
OF_THE_STEPS = 0.9
DEADLINE_S = 1500.0
#: our embedded session's JVMs compile little, which suits short work; the peer's takes minutes
ANY_JVM: Final = {f"spark.{of}.defaultJavaOptions": "" for of in ("driver", "executor")}
OURS: Final[tuple[Literal["barrier", "tensorflowonspark"], ...]] = (
    "barrier",
    "tensorflowonspark",
)
PEER, PLAIN = "TensorFlowOnSpark", "Keras in one process"
QUICK_SIDES = ("barrier", PEER, PLAIN)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one side has to do, in a folder of its own."""

    table: str
    folder: str
    rows: int
    width: int
    batch: int


@dataclass
class Stages:
    """The seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)


def list_column(values: Any) -> pa.ListArray:  # noqa: ANN401 - an array of rows of equal length
    """Return rows of numbers as an Arrow column."""
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, values.reshape(-1))


def keras_model(width: int) -> Any:  # noqa: ANN401 - a Keras model
    """Return the model of both sides that use Keras 3."""
    import keras

    inputs = keras.Input((width,), name="x")
    hidden = keras.layers.Dense(HIDDEN, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(hidden))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def write_table(path: str, rows: int, width: int) -> None:
    """Write the table: ``id``, ``x`` (``width`` float32) and ``label``."""
    random = np.random.Generator(np.random.PCG64(0))
    os.makedirs(path)
    for number, ids in enumerate(np.array_split(np.arange(rows), FILES)):
        values = random.random((len(ids), width), np.float32)
        columns = {
            "id": pa.array(ids),
            "x": list_column(values),
            "label": pa.array((values[:, :2].sum(axis=1) * CLASSES / 2).astype(np.int64)),
        }
        pq.write_table(pa.table(columns), os.path.join(path, f"part-{number}.parquet"))


@contextlib.contextmanager
def spark_of_two(conf: dict[str, str] | None = None) -> Iterator[SparkSession]:
    """Give a session whose executors have run something already."""
    from spark_dl.session import embedded_session

    with embedded_session(f"local-cluster[{WORKERS},1,1536]", conf=conf) as spark:
        spark.sparkContext.setLogLevel("ERROR")
        spark.sparkContext.parallelize(range(WORKERS), WORKERS).map(lambda i: i).count()
        yield spark


def ours(backend: Literal["barrier", "tensorflowonspark"]) -> Callable[[Work], dict[str, float]]:
    """Return our way, on one of the backends."""

    def build(spec: Any, params: Any) -> Any:  # noqa: ANN401, ARG001 - a Keras model
        return keras_model(*spec["x"].shape)

    def run(work: Work) -> dict[str, float]:
        import spark_dl

        stages = Stages()
        with spark_of_two() as spark:
            table = spark.read.parquet(work.table)
            with stages.stage("prepare"):
                dataset = spark_dl.prepare(
                    table,
                    features={"x": spark_dl.Feature("x", shape=(work.width,))},
                    label="label",
                    id="id",
                    path=os.path.join(work.folder, "dataset"),
                    splits={"train": 1.0},
                    min_shards=WORKERS,
                )
            with stages.stage("train"):
                trained = spark_dl.train(
                    build,
                    dataset,
                    num_workers=WORKERS,
                    global_batch_size=work.batch,
                    epochs=1,
                    backend=backend,
                    runs=os.path.join(work.folder, "runs"),
                    tensorboard=False,
                )
            with stages.stage("predict"):
                scored = spark_dl.predict(table, trained.model_path)
                # the peer's has no other column than the prediction
                wanted = scored.select("id", "prediction")
                wanted.write.parquet(os.path.join(work.folder, "predictions"))
        return stages.seconds

    return run


def node(args: Any, ctx: Any) -> None:  # noqa: ANN401 - what TensorFlowOnSpark gives
    """Train as the examples of TensorFlowOnSpark do."""
    import numpy as np
    import tensorflow as tf
    from tensorflowonspark import TFNode

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    feed = TFNode.DataFeed(ctx.mgr, False)  # noqa: FBT003 - as its examples call it

    def rows() -> Iterator[tuple[Any, Any]]:
        while not feed.should_stop():
            batch = feed.next_batch(1)
            if not batch:
                return
            x, label = batch[0]
            yield np.array(x).astype(np.float32), np.array([label]).astype(np.float32)

    signature = (tf.TensorSpec((args.width,)), tf.TensorSpec((1,)))
    data = tf.data.Dataset.from_generator(rows, output_signature=signature)
    with strategy.scope():
        layers = tf.keras.layers
        model = tf.keras.Sequential(
            [
                layers.Dense(HIDDEN, activation="relu", input_shape=(args.width,), name="x"),
                layers.Dense(CLASSES, activation="softmax", name="scores"),
            ]
        )
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    steps = int(args.rows / args.batch / ctx.num_workers * OF_THE_STEPS)
    model.fit(x=data.batch(args.batch), epochs=1, steps_per_epoch=steps, verbose=0)
    is_chief = ctx.job_name == "chief"
    # every worker has to save: the collectives of the strategy run in it
    model.save(os.path.join(args.folder, "model" if is_chief else "discarded"), save_format="tf")
    feed.terminate()


def peer(work: Work) -> dict[str, float]:
    """TensorFlowOnSpark, in SPARK mode."""
    from tensorflowonspark import TFCluster
    from tensorflowonspark.pipeline import TFModel

    args = argparse.Namespace(**vars(work))
    stages = Stages()
    with spark_of_two(ANY_JVM) as spark:
        table = spark.read.parquet(work.table)
        with stages.stage("train"):
            cluster = TFCluster.run(
                spark.sparkContext,
                node,
                args,
                WORKERS,
                num_ps=0,
                input_mode=TFCluster.InputMode.SPARK,
                master_node="chief",
            )
            cluster.train(table.select("x", "label").rdd.map(tuple), 1)
            cluster.shutdown()
        with stages.stage("predict"):
            model = (
                TFModel({})
                .setInputMapping({"x": "x_input"})
                .setOutputMapping({"scores": "prediction"})
                .setExportDir(os.path.join(work.folder, "model"))
                .setSignatureDefKey("serving_default")
                .setTagSet("serve")
                .setBatchSize(work.batch)
            )
            scored = model.transform(table)
            scored.write.parquet(os.path.join(work.folder, "predictions"))
    return stages.seconds


def plain(work: Work) -> dict[str, float]:
    """Keras in this process, with all cores; no Spark."""
    stages = Stages()
    with stages.stage("train"):
        table = pq.read_table(work.table)
        x = table["x"].combine_chunks().flatten().to_numpy().reshape(-1, work.width)
        model = keras_model(work.width)
        model.fit(x, table["label"].to_numpy(), batch_size=work.batch, epochs=1, verbose=0)
        model.save(os.path.join(work.folder, "model.keras"))
    with stages.stage("predict"):
        scores = model.predict(x, batch_size=4096, verbose=0)
        written = os.path.join(work.folder, "predictions.parquet")
        ids = table.select(["id"])
        pq.write_table(ids.append_column("prediction", list_column(scores)), written)
    return stages.seconds


SIDES: Final[dict[str, Callable[[Work], dict[str, float]]]] = {
    **{backend: ours(backend) for backend in OURS},
    PEER: peer,
    PLAIN: plain,
}


def scored_rows(folder: str) -> int:
    """Return how many predictions a side has written."""
    for name in ("predictions", "predictions.parquet"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return len(pq.read_table(path, columns=["prediction"]))
    return 0


def run_side(name: str, work: Work) -> dict[str, float]:
    """Run a side as a program of its own.

    Raises:
        RuntimeError: it failed, took too long, or did not score every row.
    """
    os.makedirs(work.folder)
    legacy = {"TF_USE_LEGACY_KERAS": "1"} if name == PEER else {}
    log = os.path.join(work.folder, "log")
    with open(log, "wb") as file:
        done = subprocess.run(  # noqa: S603 - this script
            [sys.executable, __file__, "--as", name, json.dumps(vars(work))],
            stdout=subprocess.PIPE,
            stderr=file,
            env={**os.environ, **legacy},
            cwd=work.folder,
            timeout=DEADLINE_S,
            check=False,
        )
    rows = scored_rows(work.folder)
    if done.returncode or rows != work.rows:
        with open(log, errors="replace", encoding="utf-8") as file:
            last = file.read()[-4000:]
        msg = f"{name} ended with {done.returncode} and {rows} of {work.rows} rows:\n{last}"
        raise RuntimeError(msg)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def together(tables: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Add the stages of all tables up, for each side."""
    return {
        side: {stage: round(sum(found[side][stage] for found in tables), 2) for stage in stages}
        for side, stages in tables[0].items()
    }


def lines(what: str, found: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
    """Return one line for each of our backends beside each of the others.

    Args:
        what: went from table to predictions.
        found: the seconds of each side's stages.
    """
    whole = {name: sum(stages.values()) for name, stages in found.items()}
    for backend in (name for name in OURS if name in found):
        for name in (name for name in found if name not in OURS):
            ratio = whole[name] / whole[backend]
            line: dict[str, Any] = {
                "bench": "end_to_end",
                "work": f"table -> one epoch -> predictions, {what}, {backend}",
                "unit": "s",
                "ours": round(whole[backend], 1),
                "beside": name,
                "theirs": round(whole[name], 1),
                "ratio": round(ratio, 2),
            }
            if name == PEER:
                line |= {"goal": SIX_TIMES_AS_FAST, "ok": ratio >= SIX_TIMES_AS_FAST}
            yield line | {"stages": found[backend], "their_stages": found[name]}


def report(line: dict[str, Any], *, as_json: bool) -> None:
    """Print a line as it comes, as a row of a table or as JSON."""
    if as_json:
        print(json.dumps(line), flush=True)
        return
    goal = f"  goal {line['goal']} {'ok' if line['ok'] else 'MISSED'}" if "goal" in line else ""
    stages = (
        " + ".join(f"{name} {seconds:g}" for name, seconds in line[which].items())
        for which in ("stages", "their_stages")
    )
    print(
        f"{line['work']}: {line['ours']:g} s ({next(stages)})\n"
        f"    {line['beside']}: {line['theirs']:g} s ({next(stages)})  ratio {line['ratio']}{goal}",
        flush=True,
    )


def available(names: Iterable[str]) -> list[str]:
    """Return the sides that run here."""
    have_peer = all(importlib.util.find_spec(one) for one in ("tf_keras", "tensorflowonspark"))
    return [name for name in names if name != PEER or have_peer]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="small: only shows that it runs")
    parser.add_argument("--work", choices=WORKS, help="one of the tables, instead of both")
    parser.add_argument("--sides", nargs="*", choices=SIDES, help="some of the ways, not all")
    parser.add_argument("--as", nargs=2, dest="role", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        name, given = options.role
        print(json.dumps(SIDES[name](Work(**json.loads(given)))))
        return
    sides = options.sides or (QUICK_SIDES if options.quick else SIDES)
    works = (options.work,) if options.work else QUICK_WORKS if options.quick else (*WORKS,)
    tables = []
    for name in works:
        rows, width, batch = WORKS[name]
        if options.quick:
            rows = QUICK_ROWS
        with tempfile.TemporaryDirectory(prefix="spark-dl-bench-") as folder:
            table = os.path.join(folder, "table")
            write_table(table, rows, width)
            found = {}
            for side in available(sides):
                place = os.path.join(folder, side.replace(" ", "-"))
                work = Work(table=table, folder=place, rows=rows, width=width, batch=batch)
                found[side] = run_side(side, work)
        tables.append(found)
        for line in lines(f"{rows:,} x {width} floats", found):
            report(line, as_json=options.json)
    if len(tables) > 1:
        for line in lines("both tables", together(tables)):
            report(line, as_json=options.json)
    packages = ("pyspark", "tensorflow", "keras", "tf_keras", "tensorflowonspark")
    versions = {
        name: importlib.metadata.version(name)
        for name in packages
        if importlib.util.find_spec(name)
    }
    machine = {"cores": os.cpu_count(), "platform": platform.platform()}
    last = {"bench": "end_to_end", "machine": machine, "versions": versions}
    print(json.dumps(last) if options.json else last)


if __name__ == "__main__":
    main()

"""How fast the TFRecord connector is: ours beside its peers, on the same rows, in one run.

Rows of "tab" are a label, an array of 16 floats and a short text; of "wide" the same with a column
for each float, of "img" a label and 3,072 bytes.
``python benchmarks/tfrecord.py [--json] [--quick]``; docs/tfrecord.md holds figures.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import glob
import importlib.metadata
import itertools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as sf

from spark_dl.session import embedded_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

FLOATS = 16
TAB_ROWS, IMG_ROWS, QUICK = 1_000_000, 50_000, 200
ROUNDS = 5
PACK = 1000
BATCH = 1000
SHAPES = json.dumps({"x": [FLOATS]})
KINDS = ("tfrecord", "parquet", "noop")
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table: what is measured beside what, and the least ratio.

    Attributes:
        work: what is done.
        beside: what it is compared with.
        ours: name of our measurement.
        theirs: name of the other one.
        goal: the least ratio of their time to ours; `None`: only printed.
        cpu: whether seconds of CPU are compared, not of the clock.
    """

    work: str
    beside: str
    ours: str
    theirs: str
    goal: float | None = None
    cpu: bool = False


LINES = (
    Line(
        work="write wide",
        beside="Parquet, uncompressed",
        ours="write wide tfrecord",
        theirs="write wide parquet",
    ),
    Line(
        work="read wide, all columns",
        beside="Parquet, uncompressed",
        ours="read wide tfrecord",
        theirs="read wide parquet",
    ),
    Line(
        work="write tab",
        beside="Parquet, uncompressed",
        ours="write tab tfrecord",
        theirs="write tab parquet",
        goal=2.0,
    ),
    Line(
        work="write tab",
        beside="noop",
        ours="write tab tfrecord",
        theirs="write tab noop",
        goal=0.5,
    ),
    Line(
        work="write tab",
        beside="tf.train.Example in mapInArrow",
        ours="write tab tfrecord",
        theirs="write tab protobuf",
        goal=12.0,
    ),
    Line(
        work="read tab, all columns",
        beside="Parquet, uncompressed",
        ours="read tab tfrecord",
        theirs="read tab parquet",
        goal=1.0,
    ),
    Line(
        work="read img",
        beside="Parquet, uncompressed",
        ours="read img tfrecord",
        theirs="read img parquet",
        goal=1.0,
    ),
    Line(
        work="read one column of 18, CPU",
        beside="all columns, CPU",
        ours="read wide label",
        theirs="read wide tfrecord",
        goal=1.2,
        cpu=True,
    ),
    Line(
        work="rows into TensorFlow, packed",
        beside="num_parallel_reads=AUTOTUNE and parse_example",
        ours="feed packed",
        theirs="feed usual",
        goal=100.0,
    ),
    Line(
        work="rows into TensorFlow, packed",
        beside="row a record, best",
        ours="feed packed",
        theirs="feed rows",
        goal=8.0,
    ),
    Line(
        work="rows into TensorFlow, packed, as training reads them",
        beside="the same without shuffle",
        ours="feed training",
        theirs="feed ordered",
        goal=0.8,
    ),
    Line(
        work="rows into TensorFlow, packed, as training reads them",
        beside="a bare TFRecordDataset of the packs",
        ours="feed training",
        theirs="feed packed",
    ),
)


@dataclass(frozen=True)
class Times:
    """Seconds of the rounds of one measurement, and the rows that each moved."""

    rows: int
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def of(self, *, cpu: bool) -> list[float]:
        """Return the seconds of CPU or of the clock."""
        return self.cpu if cpu else self.wall


def jvm_cpu(spark: SparkSession) -> float:
    """Return the seconds of CPU that the JVM, without Python workers, has used (Linux)."""
    process = spark.sparkContext._gateway.proc  # noqa: SLF001  nobody else knows the JVM's id
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    """Return the seconds of CPU that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def tab(spark: SparkSession, rows: int) -> DataFrame:
    """Return the rows of "tab", in three parts."""
    label, floats, text = _columns()
    return spark.range(0, rows, 1, 3).select(label, sf.array(*floats).alias("x"), text)


def wide(spark: SparkSession, rows: int) -> DataFrame:
    """Return the rows of "wide", in three parts."""
    label, floats, text = _columns()
    named = [column.alias(f"f{i:02}") for i, column in enumerate(floats)]
    return spark.range(0, rows, 1, 3).select(label, *named, text)


def _columns() -> tuple[Column, list[Column], Column]:
    floats = [(sf.rand(i) * 2 - 1).cast("float") for i in range(FLOATS)]
    text = sf.format_string("customer%05d", sf.col("id") % 100_000).alias("text")
    return (sf.col("id") % 1000).alias("label"), floats, text


def img(spark: SparkSession, rows: int) -> DataFrame:
    """Return the rows of "img", in two parts."""
    pixels = sf.unhex(sf.concat(*(sf.sha2(sf.concat("id", sf.lit(i)), 256) for i in range(96))))
    return spark.range(0, rows, 1, 2).select((sf.col("id") % 10).alias("label"), pixels.alias("x"))


def write_by_protobuf(df: DataFrame, folder: str) -> None:
    """Write as people do without a connector: protobuf in Python workers."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import tensorflow as tf
        from pyspark import TaskContext

        number = TaskContext.get().partitionId()
        rows = 0
        with tf.io.TFRecordWriter(f"{folder}/part-{number:05}.tfrecord") as writer:
            for batch in batches:
                for row in batch.to_pylist():
                    features = {}
                    for name, value in row.items():
                        if isinstance(value, int):
                            one = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                        elif isinstance(value, list):
                            one = tf.train.Feature(float_list=tf.train.FloatList(value=value))
                        else:
                            texts = tf.train.BytesList(value=[value.encode()])
                            one = tf.train.Feature(bytes_list=texts)
                        features[name] = one
                    example = tf.train.Example(features=tf.train.Features(feature=features))
                    writer.write(example.SerializeToString())
                    rows += 1
        yield pa.RecordBatch.from_pydict({"rows": [rows]})

    os.makedirs(folder, exist_ok=True)
    df.mapInArrow(write, "rows bigint").collect()


class Bench:
    """Measures and remembers.

    Args:
        spark: the session.
        folder: where files go.
        quick: few rows, one round.
    """

    def __init__(self, spark: SparkSession, folder: str, *, quick: bool) -> None:
        """Remember the settings."""
        self.spark, self.folder, self.quick = spark, folder, quick
        self.rounds = 1 if quick else ROUNDS
        self.tab_rows = TAB_ROWS // (QUICK if quick else 1)
        self.img_rows = IMG_ROWS // (QUICK if quick else 1)
        self.times: dict[str, Times] = {}

    def at(self, name: str) -> str:
        """Return a path for files."""
        return os.path.join(self.folder, name)

    def files(self, name: str) -> list[str]:
        """Return the data files of a table."""
        return sorted(glob.glob(f"{self.at(name)}/part-*"))

    def measure(
        self,
        works: dict[str, Callable[[], object]],
        cpu: Callable[[], float],
        *,
        rows: int,
        rounds: int | None = None,
    ) -> None:
        """Measure some works in turns, after as many rounds that warm them all."""
        rounds = rounds or self.rounds
        self.times |= {name: Times(rows) for name in works}
        for _ in range(rounds):
            for work in works.values():
                work()
        for _ in range(rounds):
            for name, work in works.items():
                before, start = cpu(), time.perf_counter()
                work()
                self.times[name].wall.append(time.perf_counter() - start)
                self.times[name].cpu.append(cpu() - before)
        for name in works:
            wall, used = min(self.times[name].wall), min(self.times[name].cpu)
            print(f"  {name}: {wall:.3f} s, CPU {used:.3f} s", file=sys.stderr)

    def jvm(self) -> float:
        """Return the seconds of CPU that the JVM has used."""
        return jvm_cpu(self.spark)

    def through_spark(self) -> None:
        """Measure writing and reading."""
        for name, source, count in (
            ("tab", tab(self.spark, self.tab_rows), self.tab_rows),
            ("wide", wide(self.spark, self.tab_rows), self.tab_rows),
            ("img", img(self.spark, self.img_rows), self.img_rows),
        ):
            source.write.option("compression", "none").parquet(self.at(f"{name}-source"))
            rows = self.spark.read.parquet(self.at(f"{name}-source"))

            def save(kind: str, rows: DataFrame = rows, name: str = name) -> None:
                writer = rows.write.mode("overwrite").format(kind).option("compression", "none")
                if name == "tab" and kind == "tfrecord":
                    writer = writer.option("shapes", SHAPES)
                writer.save() if kind == "noop" else writer.save(self.at(f"{name}-{kind}"))

            writes = {f"write {name} {kind}": partial(save, kind) for kind in KINDS}
            self.measure(writes, self.jvm, rows=count)
            reads = {
                f"read {name} {kind}": partial(noop, self.load(kind, f"{name}-{kind}"))
                for kind in ("tfrecord", "parquet")
            }
            if name == "wide":
                label = self.load("tfrecord", "wide-tfrecord").select("label")
                reads["read wide label"] = partial(noop, label)
            self.measure(reads, self.jvm, rows=count)
        self.by_protobuf()

    def load(self, kind: str, name: str) -> DataFrame:
        """Return a table of the folder."""
        return self.spark.read.format(kind).load(self.at(name))

    def by_protobuf(self) -> None:
        """Measure what people do without a connector."""
        source = self.load("parquet", "tab-source")
        work = {"write tab protobuf": lambda: write_by_protobuf(source, self.at("tab-protobuf"))}
        self.measure(work, self.jvm, rows=self.tab_rows, rounds=1)

    def into_tensorflow(self) -> None:
        """Measure reading rows into TensorFlow."""
        import tensorflow as tf

        from spark_dl import feature_spec

        packs = self.load("parquet", "tab-source").write.format("tfrecord")
        packs.option("rowsPerRecord", PACK).option("shapes", SHAPES).save(self.at("tab-packed"))
        rows = self.files("tab-tfrecord")
        by_row, by_pack = feature_spec(self.at("tab-tfrecord")), feature_spec(self.at("tab-packed"))
        parse_rows = lambda batch: tf.io.parse_example(batch, by_row)  # noqa: E731
        parse_pack = lambda pack: tf.io.parse_single_example(pack, by_pack)  # noqa: E731
        auto = tf.data.AUTOTUNE
        usual = tf.data.TFRecordDataset(rows, num_parallel_reads=auto).batch(BATCH)
        usual = usual.map(parse_rows, num_parallel_calls=auto)
        plain = tf.data.TFRecordDataset(rows).batch(BATCH)
        plain = plain.map(parse_rows, num_parallel_calls=auto).prefetch(2)
        packed = tf.data.TFRecordDataset(self.files("tab-packed"))
        packed = packed.map(parse_pack, num_parallel_calls=2).prefetch(2)
        count = self.tab_rows
        self.measure({"feed usual": lambda: drain(usual)}, own_cpu, rows=count, rounds=1)
        self.measure({"feed rows": lambda: drain(plain)}, own_cpu, rows=count, rounds=2)
        feeds = {"feed packed": lambda: drain(packed), **self.training_feeds()}
        self.measure(feeds, own_cpu, rows=count)

    def training_feeds(self) -> dict[str, Callable[[], object]]:
        """Return the work of an epoch as training reads it, and of the same in table order."""
        from spark_dl import Feature, prepare
        from spark_dl.shards.assignment import Assignment
        from spark_dl.training.data import ShardReader, training_dataset

        source = self.load("parquet", "tab-source")
        dataset = prepare(
            source,
            features={"x": Feature("x", shape=(FLOATS,)), "text": "text"},
            label="label",
            path=self.at("dataset"),
            splits={"train": 1.0},
            rows_per_record=PACK,
        )
        manifest = dataset.manifest
        shards = manifest.split("train")
        reader = ShardReader(dataset.path, shards, manifest.rows_per_record)
        shuffled = Assignment(
            rows=len(reader),
            world_size=1,
            rank=0,
            global_batch_size=BATCH,
            seed=1,
            shard_rows=tuple(shard.rows for shard in shards),
            rows_per_record=manifest.rows_per_record,
        )
        epochs = itertools.count()

        def feed(assignment: Assignment) -> None:
            epoch = next(epochs)
            one = range(epoch, epoch + 1)
            drain(training_dataset(reader, assignment, manifest.spec, epochs=one, bare=False))

        return {
            "feed training": partial(feed, shuffled),
            "feed ordered": partial(feed, dataclasses.replace(shuffled, shuffle=False)),
        }

    def results(self) -> list[dict[str, Any]]:
        """Return the lines of the table."""
        return [self.result(line) for line in LINES]

    def result(self, line: Line) -> dict[str, Any]:
        """Return one line: rows a second of both sides, best and median, and their ratio."""
        ours, theirs = self.times[line.ours], self.times[line.theirs]
        mine, other = ours.of(cpu=line.cpu), theirs.of(cpu=line.cpu)
        ratio = min(other) / min(mine)
        found: dict[str, Any] = {
            "bench": "tfrecord",
            "work": line.work,
            "unit": "rows/CPU-s" if line.cpu else "rows/s",
            "ours": round(ours.rows / min(mine)),
            "ours_median": round(ours.rows / statistics.median(mine)),
            "ours_cpu_s": round(min(ours.cpu), 3),
            "beside": line.beside,
            "theirs": round(theirs.rows / min(other)),
            "theirs_median": round(theirs.rows / statistics.median(other)),
            "theirs_cpu_s": round(min(theirs.cpu), 3),
            "ratio": round(ratio, 2),
        }
        return found if line.goal is None else found | {"goal": line.goal, "ok": ratio >= line.goal}


def hot_loops() -> list[dict[str, Any]]:
    """Return nanoseconds a row of the connector's loops, from the JVM's tests where they are built.

    They have no goal; the ceilings are lines of their own.
    """
    import pyspark

    built = glob.glob(str(ROOT / "jars/connector/target/scala-2.13/*classes"))
    if len(built) < len(("main", "test")):
        print("  hot loops: not built, `make test-jars` does it", file=sys.stderr)
        return []
    spark_jars = os.path.join(os.path.dirname(pyspark.__file__), "jars", "*")
    path = os.pathsep.join([*built, spark_jars])
    opened = ("java.lang", "java.nio", "java.util", "sun.nio.ch")
    opens = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in opened]
    command = ["java", *opens, "-cp", path, "io.sparkdl.tfrecord.HotLoops"]
    done = subprocess.run(  # noqa: S603  our own program
        command, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        print(f"  hot loops: exit code {done.returncode}: {done.stderr[-1000:]}", file=sys.stderr)
    found = re.findall(r"^(.+?)\s+([\d.]+) ns$", done.stdout, re.MULTILINE)
    return [
        {"bench": "tfrecord", "work": f"hot loop: {name}", "unit": "ns/row", "ours": float(ns)}
        for name, ns in found
    ]


def noop(df: DataFrame) -> None:
    """Read all rows and drop them."""
    df.write.mode("overwrite").format("noop").save()


def drain(dataset: Any) -> int:  # noqa: ANN401  tensorflow has no types
    """Take all batches in C++, as a training step does; return their number."""
    return int(dataset.reduce(np.int64(0), lambda count, *_: count + 1))


def main() -> int:
    """Measure, print, and say whether the goals were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="few rows: does it run at all")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        # with the compiler that a cluster's JVMs have
        conf = {"spark.driver.memory": "3g", "spark.driver.defaultJavaOptions": ""}
        spark = stack.enter_context(embedded_session("local[2]", conf=conf))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfrecord-bench-"))
        bench = Bench(spark, folder, quick=args.quick)
        bench.through_spark()
        bench.into_tensorflow()
    found = bench.results()
    loops = [] if args.quick else hot_loops()
    report(found, loops, as_json=args.json)
    return 0 if args.quick or all(line.get("ok", True) for line in found) else 1


def report(found: list[dict[str, Any]], loops: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print the lines, as a table or as JSON."""
    machine = {"cores": os.cpu_count(), "platform": platform.platform()}
    packages = ("pyspark", "tensorflow", "pyarrow", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    if as_json:
        for line in [*found, *loops]:
            print(json.dumps(line))
        print(json.dumps({"bench": "tfrecord", "machine": machine, "versions": versions}))
        return
    print("| work | beside | ours, rows/s | theirs | ratio | goal | ok |")
    print("|---|---|---|---|---|---|---|")
    for line in found:
        numbers = f"{line['ours']:,} | {line['theirs']:,} | {line['ratio']}x"
        judged = f"{line['goal']}x | {'yes' if line['ok'] else 'no'}" if "goal" in line else "|"
        print(f"| {line['work']} | {line['beside']} | {numbers} | {judged} |")
    for line in loops:
        print(f"{line['work']}: {line['ours']} ns a row")
    print(f"python {platform.python_version()}, {machine}, {versions}")


if __name__ == "__main__":
    sys.exit(main())

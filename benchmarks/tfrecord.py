"""How fast the TFRecord connector is: ours beside its peers, on the same rows, in one run.

Rows of "tab" are a label, 16 floats and a short text; rows of "img" a label and 3,072 bytes.
``python benchmarks/tfrecord.py [--json] [--quick]``; docs/tfrecord.md holds figures.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import os
import platform
import resource
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from pyspark.sql import functions as sf

from spark_dl.session import embedded_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

FLOATS = 16
TAB_ROWS, IMG_ROWS, QUICK = 1_000_000, 50_000, 20
ROUNDS = 5
PACK = 1000
BATCH = 1000
#: What each work must reach beside its peer: the ratio of the peer's time to ours.
GOALS = {
    ("write tab", "Parquet"): 2.0,
    ("write tab", "noop"): 0.5,
    ("write tab", "tf.train.Example in mapInArrow"): 12.0,
    ("read tab", "Parquet"): 1.0,
    ("read img", "Parquet"): 1.0,
    ("read 1 of 18 columns, CPU", "all columns, CPU"): 1.2,
    ("into TensorFlow, packed", "AUTOTUNE and parse_example"): 100.0,
    ("into TensorFlow, packed", "row a record, best"): 8.0,
    ("into TensorFlow, packed, of training", "packed"): 0.8,
}
Times = tuple[float, float]


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


def best(work: Callable[[], object], cpu: Callable[[], float], rounds: int) -> Times:
    """Return the best wall and CPU seconds of some rounds, after one that warms up."""
    work()
    wall, used = [], []
    for _ in range(rounds):
        before, start = cpu(), time.perf_counter()
        work()
        wall.append(time.perf_counter() - start)
        used.append(cpu() - before)
    return min(wall), min(used)


def tab(spark: SparkSession, rows: int) -> DataFrame:
    """Return the rows of "tab", in three parts."""
    floats = [(sf.rand(i) * 2 - 1).cast("float").alias(f"f{i:02}") for i in range(FLOATS)]
    label = (sf.col("id") % 1000).alias("label")
    text = sf.format_string("customer%05d", sf.col("id") % 100_000).alias("text")
    return spark.range(0, rows, 1, 3).select(label, *floats, text)


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
                        elif isinstance(value, float):
                            one = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
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
        rounds: rounds of each measurement.
        quick: whether the rows are few.
    """

    def __init__(self, spark: SparkSession, folder: str, rounds: int, *, quick: bool) -> None:
        """Remember the settings."""
        self.spark, self.folder, self.rounds = spark, folder, rounds
        self.tab_rows = TAB_ROWS // (QUICK if quick else 1)
        self.img_rows = IMG_ROWS // (QUICK if quick else 1)
        self.times: dict[str, Times] = {}

    def at(self, name: str) -> str:
        """Return a path for files."""
        return os.path.join(self.folder, name)

    def spark_time(self, name: str, work: Callable[[], object], rounds: int | None = None) -> None:
        """Measure what the JVM does."""
        self.times[name] = best(work, lambda: jvm_cpu(self.spark), rounds or self.rounds)
        print(
            f"  {name}: {self.times[name][0]:.3f} s, CPU {self.times[name][1]:.3f} s",
            file=sys.stderr,
        )

    def own_time(self, name: str, work: Callable[[], object], rounds: int | None = None) -> None:
        """Measure what this process does."""
        self.times[name] = best(work, own_cpu, rounds or self.rounds)
        print(
            f"  {name}: {self.times[name][0]:.3f} s, CPU {self.times[name][1]:.3f} s",
            file=sys.stderr,
        )

    def files(self, name: str) -> list[str]:
        """Return the data files of a table."""
        return sorted(glob.glob(f"{self.at(name)}/part-*"))

    def through_spark(self) -> None:
        """Measure writing and reading."""
        for name, source in (
            ("tab", tab(self.spark, self.tab_rows)),
            ("img", img(self.spark, self.img_rows)),
        ):
            source.write.mode("overwrite").option("compression", "none").parquet(
                self.at(f"{name}-source")
            )
            rows = self.spark.read.parquet(self.at(f"{name}-source"))

            def save(kind: str, rows: DataFrame = rows, name: str = name) -> None:
                writer = rows.write.mode("overwrite").format(kind).option("compression", "none")
                writer.save() if kind == "noop" else writer.save(self.at(f"{name}-{kind}"))

            for kind in ("tfrecord", "parquet", "noop"):
                self.spark_time(f"write {name} {kind}", lambda kind=kind: save(kind))
            for kind in ("tfrecord", "parquet"):
                read = self.spark.read.format(kind).load(self.at(f"{name}-{kind}"))
                self.spark_time(f"read {name} {kind}", lambda read=read: noop(read))
        one = self.spark.read.format("tfrecord").load(self.at("tab-tfrecord")).select("label")
        self.spark_time("read tab label", lambda: noop(one))
        rows = self.spark.read.parquet(self.at("tab-source"))
        rows.write.mode("overwrite").format("tfrecord").option("rowsPerRecord", PACK).save(
            self.at("tab-packed")
        )
        source = self.spark.read.parquet(self.at("tab-source"))
        self.spark_time(
            "write tab protobuf", lambda: write_by_protobuf(source, self.at("tab-protobuf")), 1
        )

    def into_tensorflow(self) -> None:
        """Measure reading rows into TensorFlow."""
        import tensorflow as tf

        from spark_dl import feature_spec

        rows, packs = self.files("tab-tfrecord"), self.files("tab-packed")
        by_row, by_pack = feature_spec(self.at("tab-tfrecord")), feature_spec(self.at("tab-packed"))
        parse_rows = lambda batch: tf.io.parse_example(batch, by_row)  # noqa: E731
        parse_pack = lambda pack: tf.io.parse_single_example(pack, by_pack)  # noqa: E731
        usual = tf.data.TFRecordDataset(rows, num_parallel_reads=tf.data.AUTOTUNE).batch(BATCH)
        plain = tf.data.TFRecordDataset(rows).batch(BATCH)
        packed = tf.data.TFRecordDataset(packs)
        auto = tf.data.AUTOTUNE
        self.own_time(
            "feed usual", lambda: drain(usual.map(parse_rows, num_parallel_calls=auto)), 1
        )
        self.own_time(
            "feed rows",
            lambda: drain(plain.map(parse_rows, num_parallel_calls=auto).prefetch(2)),
            2,
        )
        self.own_time(
            "feed packed", lambda: drain(packed.map(parse_pack, num_parallel_calls=2).prefetch(2))
        )
        self.own_time("feed training", self.training_feed())

    def training_feed(self) -> Callable[[], object]:
        """Return the work of an epoch as training reads it: checked, shuffled, exactly assigned."""
        from spark_dl import prepare
        from spark_dl.shards.assignment import Assignment
        from spark_dl.training.data import ShardReader, training_dataset

        source = self.spark.read.parquet(self.at("tab-source"))
        features = [name for name in source.columns if name != "label"]
        dataset = prepare(
            source,
            features=features,
            label="label",
            path=self.at("dataset"),
            splits={"train": 1.0},
            rows_per_record=PACK,
        )
        manifest = dataset.manifest
        shards = manifest.split("train")
        reader = ShardReader(dataset.path, shards, manifest.rows_per_record)
        assignment = Assignment(
            rows=len(reader),
            world_size=1,
            rank=0,
            global_batch_size=BATCH,
            seed=1,
            shard_rows=tuple(shard.rows for shard in shards),
            rows_per_record=manifest.rows_per_record,
        )
        epochs = iter(range(1000))

        def feed() -> None:
            epoch = next(epochs)
            drain(
                training_dataset(
                    reader, assignment, manifest.spec, epochs=range(epoch, epoch + 1), bare=False
                )
            )

        return feed

    def rows(self) -> list[dict[str, Any]]:
        """Return the table of the issue: work, peer, ratio, goal."""
        pairs = {
            ("write tab", "Parquet"): ("write tab tfrecord", "write tab parquet"),
            ("write tab", "noop"): ("write tab tfrecord", "write tab noop"),
            ("write tab", "tf.train.Example in mapInArrow"): (
                "write tab tfrecord",
                "write tab protobuf",
            ),
            ("read tab", "Parquet"): ("read tab tfrecord", "read tab parquet"),
            ("read img", "Parquet"): ("read img tfrecord", "read img parquet"),
            ("read 1 of 18 columns, CPU", "all columns, CPU"): (
                "read tab label",
                "read tab tfrecord",
            ),
            ("into TensorFlow, packed", "AUTOTUNE and parse_example"): (
                "feed packed",
                "feed usual",
            ),
            ("into TensorFlow, packed", "row a record, best"): ("feed packed", "feed rows"),
            ("into TensorFlow, packed, of training", "packed"): ("feed training", "feed packed"),
        }
        table = []
        for (work, beside), (ours, theirs) in pairs.items():
            at = 1 if work.endswith("CPU") else 0
            mine, other = self.times[ours], self.times[theirs]
            table.append(
                {
                    "work": work,
                    "beside": beside,
                    "ratio": round(other[at] / mine[at], 2),
                    "goal": GOALS[work, beside],
                    "wall_s": [round(mine[0], 3), round(other[0], 3)],
                    "cpu_s": [round(mine[1], 3), round(other[1], 3)],
                }
            )
        return table


def noop(df: DataFrame) -> None:
    """Read all rows and drop them."""
    df.write.mode("overwrite").format("noop").save()


def drain(dataset: Any) -> int:  # noqa: ANN401  tensorflow has no types
    """Take all batches in C++, as a training step does; return their number."""
    return int(dataset.reduce(np.int64(0), lambda count, *_: count + 1))


def main() -> int:
    """Measure, print, and say whether the goals were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="few rows: does it run at all")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        conf = {"spark.driver.memory": "3g", "spark.ui.enabled": "false"}
        spark = stack.enter_context(embedded_session("local[2]", conf=conf))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfrecord-bench-"))
        bench = Bench(spark, folder, 1 if args.quick else ROUNDS, quick=args.quick)
        bench.through_spark()
        bench.into_tensorflow()
        table = bench.rows()
        rows = {"tab": bench.tab_rows, "img": bench.img_rows}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows, "results": table}, indent=2))
    else:
        print(f"{machine}; rows: {rows}\n")
        print("| work | beside | ratio | goal | ours, s (CPU) | peer, s (CPU) |")
        print("|---|---|---|---|---|---|")
        for one in table:
            ours, peer = (
                f"{wall} ({cpu})" for wall, cpu in zip(one["wall_s"], one["cpu_s"], strict=True)
            )
            what = f"| {one['work']} | {one['beside']} | {one['ratio']}x | {one['goal']}x"
            print(f"{what} | {ours} | {peer} |")
    return 0 if args.quick or all(one["ratio"] >= one["goal"] for one in table) else 1


if __name__ == "__main__":
    sys.exit(main())

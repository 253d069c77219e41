"""How long from `train()` to the first step, on top of TensorFlow's import; both backends.

Two executors of one core on this machine. TensorFlow's import is measured as the two children do
it: twice at the same time. Printed too: what the run took in all.
``python benchmarks/start.py [--json] [--quick]``
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import spark_dl
from spark_dl.session import embedded_session
from spark_dl.shards.dataset import Dataset
from spark_dl.testing import dense_entries, write_shards

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spark_dl.schema import FeatureSpec

BACKENDS, QUICK_BACKENDS = ("barrier", "tensorflowonspark"), ("barrier",)
WORKERS, ROUNDS, QUICK_ROUNDS = 2, 5, 1
LIMIT_S = 3.0
SIZE, ROWS, BATCH = 8, 64, 16


def dense(spec: FeatureSpec, params: Mapping[str, Any]) -> Any:  # noqa: ANN401, ARG001 - a Keras model
    """Return a model that costs nothing."""
    import keras

    inputs = keras.Input(spec["x"].shape, name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(optimizer="sgd", loss="mse")
    return model


def note_first_step(rank: Any) -> list[Any]:  # noqa: ANN401 - a Rank
    """Return a callback that writes when the first step was done."""
    import keras

    class First(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
            path = os.path.join(rank.paths.root, f"first-{rank.rank}")
            if not os.path.exists(path):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(repr(time.time()))

    return [First()]


def import_seconds() -> float:
    """Return how long the import takes where two processes do it at once, as children do it."""
    code = "from spark_dl.cluster.child import preload; preload('tensorflow,keras')"
    command = [sys.executable, "-c", code]
    started = time.perf_counter()
    running = [
        subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own interpreter
        for _ in range(WORKERS)
    ]
    for process in running:
        process.wait()
    return time.perf_counter() - started


def first_step_seconds(dataset: Dataset, runs: str, backend: str) -> tuple[float, float]:
    """Return the seconds to the first step of the slowest rank, and of the whole run."""
    started = time.time()
    run = spark_dl.train(
        dense,
        dataset,
        callbacks=note_first_step,
        num_workers=WORKERS,
        global_batch_size=BATCH,
        backend=backend,
        runs=runs,
        tensorboard=False,
    )
    ended = time.time()
    steps = []
    for rank in range(WORKERS):
        with open(os.path.join(run.path, f"first-{rank}"), encoding="utf-8") as file:
            steps.append(float(file.read()))
    return max(steps) - started, ended - started


def line(backend: str, imports: list[float], times: list[tuple[float, float]]) -> dict[str, Any]:
    """Return what was found of one backend."""
    on_top = [first - taken for (first, _), taken in zip(times, imports, strict=True)]
    best = min(on_top)
    return {
        "bench": "start",
        "work": f"train() to the first step without TensorFlow's import, {backend}",
        "unit": "s",
        "ours": round(best, 2),
        "ours_median": round(statistics.median(on_top), 2),
        "beside": "limit",
        "theirs": LIMIT_S,
        "ratio": round(LIMIT_S / best, 2) if best > 0 else None,
        "goal": LIMIT_S,
        "ok": best <= LIMIT_S,
        "import_s": round(min(imports), 2),
        "whole_run_s": round(min(whole for _, whole in times), 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="small: only shows that it runs")
    options = parser.parse_args()
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    imports: list[float] = []
    backends = QUICK_BACKENDS if options.quick else BACKENDS
    times: dict[str, list[tuple[float, float]]] = {backend: [] for backend in backends}
    with (
        tempfile.TemporaryDirectory(prefix="spark-dl-bench-") as folder,
        embedded_session(f"local-cluster[{WORKERS},1,1024]") as spark,
    ):
        spark.sparkContext.setLogLevel("ERROR")
        x = np.ones((ROWS, SIZE), np.float32)
        path = os.path.join(folder, "dataset")
        write_shards(path, dense_entries(SIZE), {"train": {"x": x, "y": x[:, 0]}})
        dataset = Dataset.open(path, spark)
        if not options.quick:
            first_step_seconds(dataset, folder, BACKENDS[0])  # warms Spark and the file cache
        for _ in range(rounds):
            imports.append(import_seconds())
            for backend in backends:
                times[backend].append(first_step_seconds(dataset, folder, backend))
    for backend, measured in times.items():
        found = line(backend, imports, measured)
        print(json.dumps(found) if options.json else found)
    packages = ("pyspark", "tensorflow", "keras")
    versions = {name: importlib.metadata.version(name) for name in packages}
    machine = {"cores": os.cpu_count(), "platform": platform.platform()}
    last = {"bench": "start", "machine": machine, "versions": versions}
    print(json.dumps(last) if options.json else last)


if __name__ == "__main__":
    main()

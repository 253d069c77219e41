"""How long from `kill -9` of a child to the next step, without TensorFlow's import; and its memory.

Two executors of one core on this machine; a child is killed at a step, all ranks get new ones, and
the run goes on from its checkpoint. TensorFlow's import is measured as the two new children do it:
twice at the same time. The second line tells what a child holds after 50 epochs beside after 5.
``python benchmarks/recovery.py [--json] [--quick]``
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import spark_dl
from spark_dl.session import embedded_session
from spark_dl.shards.dataset import Dataset
from spark_dl.testing import dense_entries, descendants, write_shards

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spark_dl.schema import FeatureSpec

WORKERS, KILLS, QUICK_KILLS = 2, 3, 1
LIMIT_S, MEMORY_LIMIT = 8.0, 1.05
SIZE, ROWS, BATCH = 8, 480, 16
EPOCHS, EARLY = 50, 5
DEADLINE_S = 240.0


def dense(spec: FeatureSpec, params: Mapping[str, Any]) -> Any:  # noqa: ANN401, ARG001 - a Keras model
    """Return a model that costs nothing."""
    import keras

    inputs = keras.Input(spec["x"].shape, name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(optimizer="adam", loss="mse")
    return model


def note_steps(rank: Any) -> list[Any]:  # noqa: ANN401 - a Rank
    """Return a callback that writes when each step was done, and each epoch's memory."""
    import keras

    pace_s = rank.params["pace_s"]

    class Steps(keras.callbacks.Callback):  # type: ignore[misc]
        def _note(self, kind: str, value: object) -> None:
            path = os.path.join(rank.paths.root, f"{kind}-{rank.rank}")
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{value}\n")

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
            time.sleep(pace_s)
            if pace_s:
                self._note("steps", repr(time.time()))

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
            with open("/proc/self/statm", encoding="ascii") as statm:
                self._note("memory", int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    return [Steps()]


def import_seconds() -> float:
    """Return how long the import takes where two processes do it at once."""
    command = [sys.executable, "-c", "import tensorflow, keras"]
    started = time.perf_counter()
    running = [
        subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - our own interpreter
        for _ in range(WORKERS)
    ]
    for process in running:
        process.wait()
    return time.perf_counter() - started


def numbers(path: str) -> list[float]:
    """Return the numbers that a rank has written."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [float(text) for text in file if text.endswith("\n")]


def children() -> list[int]:
    """Return the processes that train."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"spark_dl.cluster.child" in file.read():
                    found.append(pid)
        except OSError:
            continue
    return found


def train(dataset: Dataset, runs: str, run_id: str, *, epochs: int, pace_s: float) -> Any:  # noqa: ANN401 - a Run
    """Train, with a checkpoint every few steps."""
    return spark_dl.train(
        dense,
        dataset,
        params={"pace_s": pace_s},
        callbacks=note_steps,
        num_workers=WORKERS,
        epochs=epochs,
        global_batch_size=BATCH,
        backend="barrier",
        runs=runs,
        run_id=run_id,
        tensorboard=False,
        config={"training": {"checkpoint": {"every_steps": 10}}},
    )


def recovery_seconds(dataset: Dataset, runs: str, run_id: str) -> float:
    """Kill a child in its twentieth step; return the seconds to the next step of all."""
    thread = threading.Thread(
        target=train, args=(dataset, runs, run_id), kwargs={"epochs": 2, "pace_s": 0.05}
    )
    thread.start()
    path = os.path.join(runs, run_id, "steps-0")
    wait_for(lambda: len(numbers(path)) >= 20)  # noqa: PLR2004 - as the docstring says
    victim = children()[1]
    os.kill(victim, signal.SIGKILL)
    killed = time.time()
    # a step that was on its way counts for nothing: the next one is seconds later
    wait_for(lambda: numbers(path)[-1] - killed > 1)
    first = next(moment for moment in numbers(path) if moment - killed > 1)
    thread.join(DEADLINE_S)
    return first - killed


def wait_for(is_true: Any) -> None:  # noqa: ANN401 - a function without arguments
    """Wait until something holds.

    Raises:
        TimeoutError: it does not come true.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        if time.monotonic() > deadline:
            msg = f"the run stands still for {DEADLINE_S:g} s"
            raise TimeoutError(msg)
        time.sleep(0.02)


def lines(seconds: list[float], imports: list[float], memory: list[float]) -> list[dict[str, Any]]:
    """Return what was found."""
    on_top = [taken - imported for taken, imported in zip(seconds, imports, strict=True)]
    grown = memory[-1] / memory[min(EARLY, len(memory)) - 1]
    return [
        {
            "bench": "recovery",
            "work": "kill -9 of a child to the next step, without TensorFlow's import",
            "unit": "s",
            "ours": round(min(on_top), 2),
            "ours_median": round(statistics.median(on_top), 2),
            "beside": "limit",
            "theirs": LIMIT_S,
            "ratio": round(LIMIT_S / max(min(on_top), 0.01), 2),
            "goal": LIMIT_S,
            "ok": min(on_top) <= LIMIT_S,
            "with_import_s": round(min(seconds), 2),
        },
        {
            "bench": "recovery",
            "work": f"a child's resident memory after {len(memory)} epochs, by that after {EARLY}",
            "unit": "times",
            "ours": round(grown, 4),
            "beside": "limit",
            "theirs": MEMORY_LIMIT,
            "ratio": round(MEMORY_LIMIT / grown, 3),
            "goal": MEMORY_LIMIT,
            "ok": grown <= MEMORY_LIMIT,
            "bytes": memory[-1],
        },
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="small: only shows that it runs")
    options = parser.parse_args()
    seconds, imports = [], []
    with (
        tempfile.TemporaryDirectory(prefix="spark-dl-bench-") as folder,
        embedded_session(f"local-cluster[{WORKERS},1,1024]") as spark,
    ):
        spark.sparkContext.setLogLevel("ERROR")
        x = np.ones((ROWS, SIZE), np.float32)
        path = os.path.join(folder, "dataset")
        write_shards(path, dense_entries(SIZE), {"train": {"x": x, "y": x[:, 0]}})
        dataset = Dataset.open(path, spark)
        for number in range(QUICK_KILLS if options.quick else KILLS):
            imports.append(import_seconds())
            run_id = f"killed-{number}"
            seconds.append(recovery_seconds(dataset, folder, run_id))
        if not options.quick:  # else the last one that was killed has a few epochs too
            run_id = "long"
            train(dataset, folder, run_id, epochs=EPOCHS, pace_s=0.0)
        memory = numbers(os.path.join(folder, run_id, "memory-1"))
    for found in lines(seconds, imports, memory):
        print(json.dumps(found) if options.json else found)
    packages = ("pyspark", "tensorflow", "keras")
    versions = {name: importlib.metadata.version(name) for name in packages}
    machine = {"cores": os.cpu_count(), "platform": platform.platform()}
    last = {"bench": "recovery", "machine": machine, "versions": versions}
    print(json.dumps(last) if options.json else last)


if __name__ == "__main__":
    main()

"""What working together costs: two ranks beside two trainings that know nothing of each other.

Two executors of one core on this machine, one thread a rank. A rank of the pair has as many rows a
step as each of the two that train alone, at the same time on the same cores, so that all that
differs is that gradients are averaged and that a rank waits for the other. How long it would wait
if an average cost nothing is printed too, from the steps of the two that train alone: each lasts as
long as the slower one. A convolutional model, which computes, has the goal; for a small dense one,
whose steps are nothing but overhead, the figures are printed with where the time goes.
``python benchmarks/scaling.py [--json] [--quick]``
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import spark_dl
from spark_dl.session import embedded_session
from spark_dl.shards.dataset import Dataset
from spark_dl.testing import dense_entries, write_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spark_dl.schema import FeatureSpec

GOAL = 0.95
SIDE, STEPS = 20, 20
#: rows a rank and step: with many the model computes most of the time, on fast machines too
LOCAL_BATCH, QUICK_BATCH = 128, 32
EPOCHS, QUICK_EPOCHS, ROUNDS, QUICK_ROUNDS = 15, 2, 3, 1


def convolutional(spec: FeatureSpec, params: Mapping[str, Any]) -> Any:  # noqa: ANN401, ARG001 - a Keras model
    """Return a model that computes."""
    import keras

    inputs = keras.Input(spec["x"].shape, name="x")
    image = keras.layers.Reshape((SIDE, SIDE, 1))(inputs)
    for filters in (32, 64):
        image = keras.layers.Conv2D(filters, 3, activation="relu", padding="same")(image)
    outputs = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(image))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer="adam", loss="mse", jit_compile=False)
    return model


def dense(spec: FeatureSpec, params: Mapping[str, Any]) -> Any:  # noqa: ANN401, ARG001 - a Keras model
    """Return a model whose steps are overhead."""
    import keras

    inputs = keras.Input(spec["x"].shape, name="x")
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(optimizer="adam", loss="mse", jit_compile=False)
    return model


MODELS = {"CNN": convolutional, "small dense model": dense}
QUICK_MODELS = ("CNN",)


class Times(NamedTuple):
    """Mean seconds of a step: of the pair, of those alone, and of the slower of those each time."""

    pair: float
    alone: float
    slower: float


def note_steps(rank: Any) -> list[Any]:  # noqa: ANN401 - a Rank
    """Return a callback that writes how long each step took."""
    import keras

    class Steps(keras.callbacks.Callback):  # type: ignore[misc]
        ended = 0.0

        def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002
            self.seconds: list[float] = []

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
            now = time.perf_counter()
            if batch:  # the first step of an epoch waits for its rows
                self.seconds.append(now - self.ended)
            self.ended = now

        def on_train_end(self, logs: object = None) -> None:  # noqa: ARG002
            np.save(os.path.join(rank.paths.root, f"steps-{rank.rank}.npy"), self.seconds)

    return [Steps()]


def step_seconds(path: str, rank: int) -> Any:  # noqa: ANN401 - an array
    """Return the seconds of each step; the first epoch traces, and counts for nothing."""
    return np.load(os.path.join(path, f"steps-{rank}.npy"))[STEPS - 1 :]


def measure(
    model: Callable[..., Any], datasets: dict[int, Dataset], runs: str, epochs: int, batch: int
) -> Times:
    """Train a pair, then two at once that know nothing of each other."""

    def train(workers: int) -> Any:  # noqa: ANN401 - a Run
        return spark_dl.train(
            model,
            datasets[workers],
            callbacks=note_steps,
            num_workers=workers,
            epochs=epochs,
            global_batch_size=batch * workers,
            backend="barrier",
            runs=runs,
            tensorboard=False,
        )

    pair = train(2)
    with ThreadPoolExecutor(2) as pool:
        alone = list(pool.map(train, (1, 1)))
    together = max(step_seconds(pair.path, rank).mean() for rank in (0, 1))
    first, second = (step_seconds(run.path, 0) for run in alone)
    means = (together, max(first.mean(), second.mean()), np.maximum(first, second).mean())
    return Times(*map(float, means))


def line(name: str, times: list[Times]) -> dict[str, Any]:
    """Return what was found of one model."""
    pair, alone, slower = (statistics.median(side) * 1e3 for side in zip(*times, strict=True))
    found: dict[str, Any] = {
        "bench": "scaling",
        "work": f"a step of 2 ranks, {name}",
        "unit": "ms",
        "ours": round(pair, 3),
        "beside": "two independent trainings side by side",
        "theirs": round(alone, 3),
        "ratio": round(alone / pair, 3),
        "ratio_if_averages_were_free": round(alone / slower, 3),
        "where": f"{alone:.2f} ms compute and Keras' loop, {slower - alone:.2f} ms wait for the "
        f"slower of the two, {pair - slower:.2f} ms average and its wait",
    }
    return {**found, "goal": GOAL, "ok": alone / pair >= GOAL} if name == "CNN" else found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="small: only shows that it runs")
    options = parser.parse_args()
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    epochs = QUICK_EPOCHS if options.quick else EPOCHS
    batch = QUICK_BATCH if options.quick else LOCAL_BATCH
    with (
        tempfile.TemporaryDirectory(prefix="spark-dl-bench-") as folder,
        embedded_session("local-cluster[2,1,1024]") as spark,
    ):
        spark.sparkContext.setLogLevel("ERROR")
        datasets = {}
        for workers in (1, 2):
            x = np.random.default_rng(1).normal(size=(STEPS * batch * workers, SIDE * SIDE))
            columns = {"x": x.astype(np.float32), "y": x[:, 0].astype(np.float32)}
            path = os.path.join(folder, f"dataset-{workers}")
            write_shards(path, dense_entries(SIDE * SIDE), {"train": columns})
            datasets[workers] = Dataset.open(path, spark)
        for name in QUICK_MODELS if options.quick else MODELS:
            times = [measure(MODELS[name], datasets, folder, epochs, batch) for _ in range(rounds)]
            found = line(name, times)
            print(json.dumps(found) if options.json else found, flush=True)
    packages = ("pyspark", "tensorflow", "keras")
    versions = {name: importlib.metadata.version(name) for name in packages}
    machine = {"cores": os.cpu_count(), "platform": platform.platform()}
    last = {"bench": "scaling", "machine": machine, "versions": versions}
    print(json.dumps(last) if options.json else last)


if __name__ == "__main__":
    main()

"""What working together costs: two ranks beside two trainings that know nothing of each other.

Two executors of one core on this machine, one thread a rank. A rank of the pair has as many rows a
step as each of the two that train alone, at the same time on the same cores, so that all that
differs is that gradients are averaged and that a rank waits for the other. How long it would wait
if an average cost nothing is printed too, from the steps of the two that train alone: each lasts as
long as the slower one. ResNet-20, which computes, has the goal; for a small dense model, whose
steps are nothing but overhead, the figures are printed with where the time goes.
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
SIDE, CHANNELS = 32, 3
PIXELS = SIDE * SIDE * CHANNELS
STEPS = 10
#: rows a rank and step
LOCAL_BATCH, QUICK_BATCH = 128, 8
#: of which the first counts for nothing
EPOCHS, QUICK_EPOCHS, ROUNDS, QUICK_ROUNDS = 5, 2, 3, 1


def resnet(spec: FeatureSpec, params: Mapping[str, Any]) -> Any:  # noqa: ANN401, ARG001 - a Keras model
    """Return ResNet-20 for CIFAR-10 (He et al., https://arxiv.org/abs/1512.03385, section 4.2)."""
    import keras

    def conv(x: Any, filters: int, strides: int = 1) -> Any:  # noqa: ANN401
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        return keras.layers.BatchNormalization()(x)

    inputs = keras.Input(spec["x"].shape, name="x")
    x = keras.layers.Reshape((SIDE, SIDE, CHANNELS))(inputs)
    x = keras.layers.ReLU()(conv(x, 16))
    for filters, first in ((16, 1), (32, 2), (64, 2)):
        for strides in (first, 1, 1):
            shortcut = x
            if strides > 1:  # option A: no parameters
                shortcut = keras.layers.AveragePooling2D(1, strides)(x)
                shortcut = keras.layers.Concatenate()([shortcut, keras.ops.zeros_like(shortcut)])
            x = keras.layers.ReLU()(conv(x, filters, strides))
            x = keras.layers.ReLU()(keras.layers.Add()([conv(x, filters), shortcut]))
    outputs = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(x))
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


MODELS = {"ResNet-20": resnet, "small dense model": dense}
WITH_GOAL = "ResNet-20"


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
    return {**found, "goal": GOAL, "ok": alone / pair >= GOAL} if name == WITH_GOAL else found


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
            rows = STEPS * batch * workers
            x = np.random.default_rng(1).standard_normal((rows, PIXELS), dtype=np.float32)
            columns = {"x": x, "y": x[:, 0].copy()}
            path = os.path.join(folder, f"dataset-{workers}")
            write_shards(path, dense_entries(PIXELS), {"train": columns})
            datasets[workers] = Dataset.open(path, spark)
        for name in (WITH_GOAL,) if options.quick else MODELS:
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

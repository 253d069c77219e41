"""How long it takes to average gradients over the ranks, beside TensorFlow's and PyTorch's ways.

Ranks are real processes on this machine, each with one thread. Beside ours: tf_keras under
`MultiWorkerMirroredStrategy` (one optimizer step on given gradients, on both sides), `gloo` of
`torch.distributed` (the reduction alone, as ours is shown too), and what loopback needs for the
bytes that a ring sends.
What is not installed is left out (the extra `bench`).
``python benchmarks/allreduce.py [--json] [--quick]``
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import socket
import statistics
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from spark_dl.testing import run_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARAMETERS, QUICK_PARAMETERS = (100_000, 1_000_000, 10_000_000, 100_000_000), (100_000,)
RANKS, QUICK_RANKS = (1, 2, 4), (1, 2)
#: a model's layers: most parameters are in a few of its tensors
LAYERS = (0.4, 0.3, 0.15, 0.1, 0.03, 0.01, 0.005, 0.003, 0.001, 0.001)
TWICE_AS_FAST, OF_GLOO = 2.0, 1 / 1.5
MILLION, FLOAT_BYTES = 1_000_000, 4
#: steps of a measurement: about so many parameters are reduced, between these bounds
REDUCED, LEAST, MOST = 30_000_000, 3, 60
DEADLINE_S = 400.0


def sizes_of(parameters: int) -> list[int]:
    """Return the sizes of the model's tensors."""
    sizes = [max(int(parameters * part), 1) for part in LAYERS]
    return [sizes[0] + parameters - sum(sizes), *sizes[1:]]


def measure(step: Callable[[], object], together: Callable[[], object], steps: int) -> list[float]:
    """Return the seconds of each step; the ranks begin together."""
    for _ in range(2):
        step()
    together()
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return times


def ours(work: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401 - a ChildContext
    """Keras 3's optimizer, made distributed."""
    import keras
    import tensorflow as tf

    from spark_dl.training.collective import form_collective
    from spark_dl.training.optimizer import distributed

    collective = form_collective(context.rank, context.world_size, cores=1)
    weights = [keras.Variable(tf.zeros([n])) for n in sizes_of(work["parameters"])]
    optimizer = distributed(keras.optimizers.SGD(0.1), collective)
    optimizer.build(weights)
    gradients = [tf.Variable(tf.ones([n])) for n in sizes_of(work["parameters"])]

    @tf.function
    def step() -> None:
        optimizer.apply([tf.identity(g) for g in gradients], weights)

    return {"times": measure(step, collective.barrier, work["steps"])}


def alone(work: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401 - a ChildContext
    """Our reduction of one flat tensor, as gloo's is measured."""
    import tensorflow as tf

    from spark_dl.training.collective import form_collective

    collective = form_collective(context.rank, context.world_size, cores=1)
    gradient = tf.Variable(tf.ones([work["parameters"]]))

    @tf.function
    def step() -> tf.Tensor:
        return collective.sum(gradient)

    return {"times": measure(step, collective.barrier, work["steps"])}


def mirrored(work: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401, ARG001 - as above
    """tf_keras' optimizer inside of `MultiWorkerMirroredStrategy`."""
    import tensorflow as tf
    import tf_keras

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        weights = [tf.Variable(tf.zeros([n])) for n in sizes_of(work["parameters"])]
        optimizer = tf_keras.optimizers.SGD(0.1, jit_compile=False)
        optimizer.build(weights)
    gradients = [tf.Variable(tf.ones([n])) for n in sizes_of(work["parameters"])]

    def replica() -> None:
        pairs = zip([tf.identity(g) for g in gradients], weights, strict=True)
        optimizer.apply_gradients(pairs)

    @tf.function
    def step() -> None:
        strategy.run(replica)

    return {"times": measure(step, step, work["steps"])}


def gloo(work: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """PyTorch's `all_reduce` of one flat tensor."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{work['meeting']}",
        rank=context.rank,
        world_size=context.world_size,
    )
    gradient = torch.ones(work["parameters"])
    return {"times": measure(lambda: dist.all_reduce(gradient), dist.barrier, work["steps"])}


def loopback(work: dict[str, Any]) -> list[float]:
    """Return the seconds that loopback takes for the bytes that one rank of a ring sends."""
    ranks = work["ranks"]
    size = int(work["parameters"] * FLOAT_BYTES * 2 * (ranks - 1) / ranks)
    data = memoryview(bytearray(min(size, 1 << 20)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()

    def send() -> None:
        for start in range(0, size, len(data)):
            sender.sendall(data[: size - start])

    def step() -> None:
        thread = threading.Thread(target=send)
        thread.start()
        left = size
        while left:
            left -= receiver.recv_into(data, min(left, len(data)))
        thread.join()

    with sender, receiver:
        return measure(step, lambda: None, work["steps"])


def sides() -> dict[str, Callable[[dict[str, Any]], list[float]]]:
    """Return what is measured here, by name."""

    def on_ranks(function: Callable[..., dict[str, Any]]) -> Callable[..., list[float]]:
        def run(work: dict[str, Any]) -> list[float]:
            with tempfile.TemporaryDirectory() as folder:
                place = {**work, "meeting": os.path.join(folder, "meeting")}
                found = run_ranks(function, place, world_size=work["ranks"], timeout_s=DEADLINE_S)
            # a step is over when its slowest rank is
            return [max(times) for times in zip(*(one["times"] for one in found), strict=True)]

        return run

    here: dict[str, Callable[[dict[str, Any]], list[float]]] = {"ours": on_ranks(ours)}
    if importlib.util.find_spec("tf_keras"):
        here["MultiWorkerMirroredStrategy"] = on_ranks(mirrored)
    here["our reduction alone"] = on_ranks(alone)
    if importlib.util.find_spec("torch"):
        here["gloo"] = on_ranks(gloo)
    here["loopback"] = loopback
    return here


def lines(parameters: int, ranks: int, times: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    """Return one line for each side beside ours."""
    for name, taken in times.items():
        if name == "ours":
            continue
        best, theirs = min(times["ours"]), min(taken)
        line: dict[str, Any] = {
            "bench": "allreduce",
            "work": f"{parameters / MILLION:g} M parameters, {ranks} ranks",
            "unit": "ms",
            "ours": round(best * 1e3, 3),
            "ours_median": round(statistics.median(times["ours"]) * 1e3, 3),
            "beside": name,
            "theirs": round(theirs * 1e3, 3),
            "theirs_median": round(statistics.median(taken) * 1e3, 3),
            "ratio": round(theirs / best, 3),
        }
        goal = None
        if ranks > 1 and name == "MultiWorkerMirroredStrategy" and parameters == MILLION:
            goal = TWICE_AS_FAST
        elif ranks > 1 and name == "gloo" and parameters >= MILLION:
            goal = round(OF_GLOO, 3)
        if goal is not None:
            line |= {"goal": goal, "ok": theirs / best >= goal}
        yield line


def report(line: dict[str, Any], *, as_json: bool) -> None:
    """Print a line as it comes, as a row of a table or as JSON."""
    if as_json:
        print(json.dumps(line), flush=True)
        return
    goal = f"  goal {line['goal']} {'ok' if line['ok'] else 'MISSED'}" if "goal" in line else ""
    print(
        f"{line['work']:<28} ours {line['ours']:>10,.2f} ms  {line['beside']:<28}"
        f"{line['theirs']:>10,.2f}  ratio {line['ratio']:.2f}{goal}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="small: only shows that it runs")
    parser.add_argument("--parameters", type=int, nargs="*", help="of the model, instead of all")
    parser.add_argument("--ranks", type=int, nargs="*", help="numbers of ranks, instead of all")
    options = parser.parse_args()
    counts = options.parameters or (QUICK_PARAMETERS if options.quick else PARAMETERS)
    ranks = options.ranks or (QUICK_RANKS if options.quick else RANKS)
    for number, parameters in itertools.product(ranks, counts):
        steps = LEAST if options.quick else max(LEAST, min(MOST, REDUCED // parameters))
        work = {"parameters": parameters, "ranks": number, "steps": steps}
        times = {
            name: side(work)
            for name, side in sides().items()
            if number > 1 or name in {"ours", "MultiWorkerMirroredStrategy"}
        }
        for line in lines(parameters, number, times):
            report(line, as_json=options.json)
    packages = ("tensorflow", "keras", "tf_keras", "torch", "numpy")
    versions = {
        name: importlib.metadata.version(name)
        for name in packages
        if importlib.util.find_spec(name)
    }
    machine = {"cores": os.cpu_count(), "platform": platform.platform()}
    last = {"bench": "allreduce", "machine": machine, "versions": versions}
    print(json.dumps(last) if options.json else last)


if __name__ == "__main__":
    main()

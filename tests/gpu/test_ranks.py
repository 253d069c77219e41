"""A rank on a GPU learns what a rank on the CPU learns."""

from __future__ import annotations

import math
import subprocess

import numpy as np
import pytest

from spark_dl.config import CheckpointConfig
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]

SIZE, ROWS, BATCH, EPOCHS = 64, 960, 32, 3
GPU = "0"
#: What TensorFlow takes of a GPU without growth is nearly all of it.
MOST_MIB = 8192


def model_of(spec, params):
    """A small convolution, so that cuDNN is met too, on float32 that is not cut to TF32."""
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    keras.mixed_precision.set_dtype_policy(params.get("policy", "float32"))
    inputs = keras.Input(spec["x"].shape, name="x")
    image = keras.layers.Reshape((8, 8, 1))(inputs)
    image = keras.layers.Conv2D(16, 3, activation="relu")(image)
    hidden = keras.layers.Dense(32, activation="tanh")(keras.layers.Flatten()(image))
    outputs = keras.layers.Dense(1, activation="sigmoid", dtype="float32")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        jit_compile=params.get("jit_compile", False),
    )
    return model


def used_mib():
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", GPU]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def learn(tasks, context):
    """Train every task; return what was learnt, and where."""
    import keras
    import tensorflow as tf

    from spark_dl.training.collective import form_collective
    from spark_dl.training.worker import fit

    collective = form_collective(context.rank, context.world_size, cores=2)
    outcome = {}
    for name, task in tasks.items():
        result = fit(task, collective, context.report)
        model = keras.saving.load_model(f"{result['model_path']}/model.keras")
        outcome[name] = {
            "loss": result["history"]["loss"],
            "weights": np.concatenate([np.ravel(w) for w in model.get_weights()]).tolist(),
            "resumed_from": result["resumed_from"],
        }
    gpus = tf.config.list_physical_devices("GPU")
    outcome["place"] = {
        "gpus": len(gpus),
        "peak": tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else 0,
        "used_mib": used_mib() if gpus else 0,
    }
    return outcome


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dataset"))
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, SIZE)).astype(np.float32)
    columns = {"x": x, "y": (x[:, :8].sum(axis=1) > 0).astype(np.float32)}
    write_shards(folder, dense_entries(SIZE), {"train": columns}, rows_per_record=40)
    return folder


@pytest.fixture(scope="module")
def task(dataset, tmp_path_factory):
    def make(place, name, epochs=EPOCHS, **params):
        runs = tmp_path_factory.getbasetemp() / f"runs-{place}"
        return TrainTask(
            model_fn=model_of,
            params=params,
            dataset=dataset,
            paths=RunPaths(runs=str(runs), run_id=name),
            epochs=epochs,
            global_batch_size=BATCH,
            seed=5,
            checkpoint=CheckpointConfig(every_epochs=1),
        )

    return make


CASES = {
    "plain": {},
    "compiled": {"jit_compile": True},
    "mixed": {"policy": "mixed_float16"},
    "bfloat": {"policy": "mixed_bfloat16", "jit_compile": True},
}


@pytest.fixture(scope="module")
def on_cpu(task):
    return run_ranks(learn, {"plain": task("cpu", "plain")}, world_size=1)[0]


@pytest.fixture(scope="module")
def on_gpu(task):
    tasks = {name: task("gpu", name, **params) for name, params in CASES.items()}
    tasks["first-half"] = task("gpu", "resumed", epochs=1)
    tasks["resumed"] = task("gpu", "resumed")
    return run_ranks(learn, tasks, world_size=1, gpus=GPU, timeout_s=600)[0]


def test_the_gpu_was_used_and_takes_no_more_than_it_needs(on_cpu, on_gpu):
    assert on_cpu["place"] == {"gpus": 0, "peak": 0, "used_mib": 0}
    assert on_gpu["place"]["gpus"] == 1
    assert on_gpu["place"]["peak"] > 0
    assert on_gpu["place"]["used_mib"] < MOST_MIB


@pytest.mark.parametrize("case", ["plain", "compiled", "resumed"])
def test_a_gpu_learns_what_the_cpu_learns(on_cpu, on_gpu, case):
    expected = on_cpu["plain"]
    np.testing.assert_allclose(on_gpu[case]["loss"], expected["loss"], rtol=2e-3)
    np.testing.assert_allclose(on_gpu[case]["weights"], expected["weights"], atol=5e-3)


def test_a_run_goes_on_from_its_checkpoint(on_gpu):
    assert on_gpu["first-half"]["resumed_from"] == 0
    assert on_gpu["resumed"]["resumed_from"] == ROWS // BATCH


@pytest.mark.parametrize("case", ["mixed", "bfloat"])
def test_half_precision_learns_nearly_the_same(on_cpu, on_gpu, case):
    loss = on_gpu[case]["loss"]
    assert all(map(math.isfinite, loss))
    np.testing.assert_allclose(loss, on_cpu["plain"]["loss"], rtol=0.1)
    assert on_gpu[case]["weights"] != on_gpu["plain"]["weights"]


def reduce_alone(value, context):
    """What a larger cluster does on GPUs, with one rank: NCCL, flat buckets, rows of embeddings."""
    import tensorflow as tf

    from spark_dl.training.collective import MultiWorkerCollective

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    collective = MultiWorkerCollective(0, 1, timeout_s=60)
    tensors = [tf.random.normal(shape) for shape in ([300, 70], [5], [])]
    rows = tf.IndexedSlices(tf.ones([2, 3]), tf.constant([1, 4], tf.int64), tf.constant([9, 3]))

    @tf.function
    def step():
        return collective.mean([*tensors, rows])

    *dense, sparse = step()
    pairs = zip(dense, tensors, strict=True)
    return {
        "ring": collective._ring is not None,
        "dense": all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs),
        "sparse": tf.convert_to_tensor(sparse).numpy().sum(axis=1).tolist(),
        "summed": [a.tolist() for a in collective.sum_arrays([np.arange(3.0), np.ones(2)])],
        "broadcast": collective.broadcast([np.arange(5, dtype=np.int16)])[0].tolist(),
        "device": dense[0].device,
    }


def test_sums_on_a_gpu_go_through_tensorflow(gpu):
    (found,) = run_ranks(reduce_alone, None, world_size=1, gpus=GPU)
    assert found.pop("device").endswith("GPU:0")
    assert found == {
        "ring": False,
        "dense": True,
        "sparse": [0.0, 3.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0],
        "summed": [[0.0, 1.0, 2.0], [1.0, 1.0]],
        "broadcast": [0, 1, 2, 3, 4],
    }

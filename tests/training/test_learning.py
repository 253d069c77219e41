"""N workers learn what one worker learns: same global batches, same weights, same metrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from spark_dl.schema import Role, SpecEntry
from spark_dl.storage import RunPaths
from spark_dl.testing import dense_entries, run_ranks, write_shards
from spark_dl.training import TrainTask

#: three clusters are formed by the first test that asks for them
pytestmark = pytest.mark.timeout(900)

SIZE = 16
# divides by neither 2 nor 3, nor by the batch size
VALIDATION_ROWS = 101
TRAIN_ROWS = 241
BATCH = 12
# 20 steps an epoch
EPOCHS = {"float64": 10, "float32": 1}


def compiled(inputs, hidden, params):
    import keras

    outputs = keras.layers.Dense(1, activation="sigmoid")(hidden)
    model = keras.Model(inputs, outputs)
    settings = {"class_name": params["optimizer"], "config": {"learning_rate": 0.01}}
    model.compile(
        optimizer=keras.optimizers.get(settings),
        loss="binary_crossentropy",
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
    )
    return model


def dense(spec, params):
    import keras

    keras.config.set_floatx(params["floatx"])
    inputs = keras.Input(spec["x"].shape, name="x")
    return compiled(inputs, keras.layers.Dense(24, activation="tanh")(inputs), params)


def cnn(spec, params):
    import keras

    keras.config.set_floatx(params["floatx"])
    inputs = keras.Input(spec["x"].shape, name="x")
    image = keras.layers.Reshape((4, 4, 1))(inputs)
    image = keras.layers.Conv2D(6, 2, activation="relu")(image)
    return compiled(inputs, keras.layers.Flatten()(image), params)


def embedded(spec, params):
    """Gradients that are sparse and stay so, that are sparse and are more than the table, none."""
    import keras

    keras.config.set_floatx("float64")
    inputs = keras.Input(spec["x"].shape, name="x")
    words = keras.ops.cast(keras.ops.abs(inputs[:, :4]) * 1000, "int32")
    many = keras.layers.Embedding(500, 3)(keras.ops.mod(words, 500))
    few = keras.layers.Embedding(5, 3)(keras.ops.mod(words, 5))
    hidden = keras.layers.Flatten()(keras.layers.Concatenate()([many, few]))
    outputs = keras.layers.Dense(1, activation="sigmoid")(hidden)
    model = keras.Model(inputs, outputs)
    unused = keras.layers.Dense(2)
    unused.build((None, 1))
    model.unused = unused  # trainable, and has no gradient
    settings = {"class_name": "Adam", "config": {"learning_rate": 0.01, **params["optimizer"]}}
    model.compile(optimizer=keras.optimizers.get(settings), loss="binary_crossentropy")
    return model


def normalised(spec, params):
    """Statistics of their own on each rank, which validation and export must not differ in."""
    import keras

    keras.config.set_floatx(params["floatx"])
    inputs = keras.Input(spec["x"].shape, name="x")
    hidden = keras.layers.BatchNormalization(momentum=0.5)(inputs)
    outputs = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.2)(hidden))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


def evaluate_export(task, model_path):
    """Keras' own figures: the exported model, one process, all rows in one batch."""
    import keras

    from spark_dl.shards import Manifest
    from spark_dl.training.data import ShardReader, evaluation_dataset

    manifest = Manifest.read(task.dataset)
    rows = manifest.totals["validation"]
    reader = ShardReader(task.dataset, manifest.split("validation"))
    batch = evaluation_dataset(reader, manifest.spec, range(rows), batch_size=rows, bare=True)
    model = keras.saving.load_model(f"{model_path}/model.keras")
    return {k: float(v) for k, v in model.evaluate(batch, return_dict=True, verbose=0).items()}


def run_cases(tasks, context):
    """Train every task in one cluster; return final weights and history of each."""
    import keras

    from spark_dl.training.collective import form_collective
    from spark_dl.training.worker import fit

    collective = form_collective(context.rank, context.world_size, cores=1)
    outcome = {}
    for name, task in tasks.items():
        result = fit(task, collective, context.report)
        entry = {"history": result["history"], "steps": result["steps"]}
        if context.rank == 0:
            model = keras.saving.load_model(f"{result['model_path']}/model.keras")
            entry["weights"] = np.concatenate([np.ravel(w) for w in model.get_weights()]).tolist()
            entry["evaluated"] = evaluate_export(task, result["model_path"])
            entry["optimizer"] = type(model.optimizer).__module__
        outcome[name] = entry
    return outcome


#: what is looked at where one case is enough
CASE = "dense-Adam-float32"
#: weighted rows, incomplete batches filled up, and a rank without validation rows
PADDED = "weighted-padded"
NORMALISED = "batch-normalised"
OPTIMIZERS = ("SGD", "Adam")
#: what Keras' optimizers do with gradients must see the averaged ones
EMBEDDED = {
    "embedded": {},
    "embedded-clipped": {"global_clipnorm": 0.05},
    "embedded-accumulated": {"gradient_accumulation_steps": 3},
}
MODELS = {"dense": dense, "cnn": cnn}


def columns(rows, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, SIZE)).astype(np.float32)
    y = (x.sum(axis=1) + 0.3 * rng.normal(size=rows) > 0).astype(np.float32)
    return {"x": x, "y": y, "w": rng.uniform(0.5, 2, size=rows).astype(np.float32)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("dataset"))
    splits = {"train": columns(TRAIN_ROWS, 3), "validation": columns(VALIDATION_ROWS, 4)}
    write_shards(folder, dense_entries(SIZE), splits)
    return folder, splits


@pytest.fixture(scope="module")
def weighted_dataset(tmp_path_factory):
    """Rows with weights, and fewer validation rows than ranks."""
    folder = str(tmp_path_factory.mktemp("weighted"))
    weight = SpecEntry(name="w", column="w", dtype="float32", role=Role.WEIGHT)
    splits = {"train": columns(TRAIN_ROWS, 5), "validation": columns(2, 6)}
    write_shards(folder, (*dense_entries(SIZE), weight), splits)
    return folder


def make_tasks(folder, weighted_folder, runs, world_size):
    tasks = {}
    for (model, function), optimizer, floatx in itertools.product(
        MODELS.items(), OPTIMIZERS, EPOCHS
    ):
        name = f"{model}-{optimizer}-{floatx}"
        if world_size > 2 and not name.startswith("dense-Adam"):
            continue
        tasks[name] = TrainTask(
            model_fn=function,
            params={"optimizer": optimizer, "floatx": floatx},
            dataset=folder,
            paths=RunPaths(runs=runs, run_id=name),
            epochs=EPOCHS[floatx],
            global_batch_size=BATCH,
            seed=5,
        )
    for name, optimizer in EMBEDDED.items():
        tasks[name] = TrainTask(
            model_fn=embedded,
            params={"optimizer": optimizer},
            dataset=folder,
            paths=RunPaths(runs=runs, run_id=name),
            epochs=3,
            global_batch_size=BATCH,
            seed=5,
        )
    tasks[PADDED] = TrainTask(
        model_fn=dense,
        params={"optimizer": "SGD", "floatx": "float64"},
        dataset=weighted_folder,
        paths=RunPaths(runs=runs, run_id=PADDED),
        epochs=3,
        global_batch_size=BATCH,
        seed=5,
        remainder="pad",
    )
    tasks[NORMALISED] = TrainTask(
        model_fn=normalised,
        params={"floatx": "float32"},
        dataset=folder,
        paths=RunPaths(runs=runs, run_id=NORMALISED),
        epochs=2,
        global_batch_size=BATCH,
        seed=5,
    )
    return tasks


@pytest.fixture(scope="module")
def outcomes(dataset, weighted_dataset, tmp_path_factory):
    """Train all cases with 1, 2 and 3 workers: one cluster each."""
    by_size = {}
    for world_size in (1, 2, 3):
        runs = str(tmp_path_factory.mktemp(f"runs-{world_size}"))
        tasks = make_tasks(dataset[0], weighted_dataset, runs, world_size)
        by_size[world_size] = run_ranks(run_cases, tasks, world_size=world_size)
    return by_size


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_weights_and_padding_are_exact_too(outcomes, world_size):
    one, many = outcomes[1][0][PADDED], outcomes[world_size][0][PADDED]
    # 241 rows in steps of 12: the last of 21 steps has one row and is filled up
    assert one["steps"] == many["steps"] == 3 * 21
    np.testing.assert_allclose(many["weights"], one["weights"], rtol=1e-9)
    for name, values in one["history"].items():
        np.testing.assert_allclose(many["history"][name], values, rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "world_size"),
    [
        *((f"{model}-{optimizer}-float64", 2) for model in MODELS for optimizer in OPTIMIZERS),
        ("dense-Adam-float64", 3),
    ],
)
def test_weights_are_those_of_one_worker_in_float64(outcomes, name, world_size):
    one, many = outcomes[1][0][name], outcomes[world_size][0][name]
    assert one["steps"] == many["steps"] == 200
    np.testing.assert_allclose(many["weights"], one["weights"], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("name", EMBEDDED)
def test_sparse_clipped_and_accumulated_gradients_are_exact_too(outcomes, name, world_size):
    one, many = outcomes[1][0], outcomes[world_size][0]
    np.testing.assert_allclose(many[name]["weights"], one[name]["weights"], rtol=1e-9)
    if name != "embedded":
        assert not np.allclose(one[name]["weights"], one["embedded"]["weights"], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_weights_are_close_to_those_of_one_worker_in_float32(outcomes, model, optimizer):
    name = f"{model}-{optimizer}-float32"
    one, many = outcomes[1][0][name], outcomes[2][0][name]
    np.testing.assert_allclose(many["weights"], one["weights"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_all_ranks_report_the_same_history(outcomes):
    for name, entry in outcomes[3][0].items():
        assert {"loss", "val_loss"} <= set(entry["history"])
        for rank in (1, 2):
            assert outcomes[3][rank][name]["history"] == entry["history"]


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_is_that_of_one_process_over_all_rows(outcomes, world_size):
    """Also where a rank has no rows (weighted-padded) and with BatchNormalization."""
    for name, entry in outcomes[world_size][0].items():
        for metric, figure in entry["evaluated"].items():
            reported = entry["history"][f"val_{metric}"][-1]
            assert reported == pytest.approx(figure, abs=1e-6), (name, metric)


@pytest.mark.slow
def test_saved_model_keeps_the_users_optimizer(outcomes):
    assert outcomes[2][0][CASE]["optimizer"].startswith("keras.")

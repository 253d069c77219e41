"""Inference without Spark and without TensorFlow: conversions, matching, choosing a model."""

from __future__ import annotations

import datetime as dt
import json
import math

import numpy as np
import pyarrow as pa
import pytest

from spark_dl.errors import ConfigError, DataError, ModelError, SparkDLError, StorageError
from spark_dl.inference import default_scoring_id, resolve_model, task_error
from spark_dl.inference.arrow import to_arrow, to_numpy
from spark_dl.inference.matching import check_columns, check_new_columns, locate
from spark_dl.inference.model import ModelOutput
from spark_dl.inference.predictor import Predictor, ScoringTask
from spark_dl.inference.resolve import metric_mode
from spark_dl.schema import FeatureSpec, SpecEntry
from spark_dl.storage import JobState, JobStatus, RunPaths
from spark_dl.storage.checksum import MODEL_FILE, folder_checksum


def entry(dtype="float32", shape=(), **settings):
    return SpecEntry(name="x", column="the x", dtype=dtype, shape=shape, **settings)


# --- Arrow to inputs ---


def test_numbers_of_fixed_shape_are_not_copied():
    flat = np.arange(24, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), 6).cast(pa.list_(pa.float32()))
    values = to_numpy(column.slice(1, 2), entry(shape=(2, 3)))
    np.testing.assert_array_equal(values, flat[6:18].reshape(2, 2, 3))
    address = column.flatten().buffers()[1].address
    assert values.__array_interface__["data"][0] == address + 6 * 4


@pytest.mark.parametrize(
    ("dtype", "column", "expected"),
    [
        ("bool", pa.array([True, False]), np.array([True, False])),
        ("int8", pa.array([1, -1], pa.int8()), np.array([1, -1], np.int8)),
        ("string", pa.array(["é", ""]), np.array(["é", ""], object)),
        ("binary", pa.array([b"\x00a\x00", b""]), np.array([b"\x00a\x00", b""], object)),
        ("date", pa.array([dt.date(1970, 1, 3)] * 2), np.array([2, 2])),
        (
            "timestamp",
            pa.array([1_000_001, -1], pa.timestamp("us", "UTC")),
            np.array([1_000_001, -1]),
        ),
    ],
)
def test_scalars(dtype, column, expected):
    values = to_numpy(column, entry(dtype))
    assert values.dtype == expected.dtype
    assert values.tolist() == expected.tolist()


def test_rows_of_variable_length_are_padded():
    column = pa.array([[1, 2, 3, 4], [], [5, 6]], pa.list_(pa.int32()))
    values = to_numpy(column, entry("int32", (None, 2)))
    assert values.tolist() == [[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[5, 6], [0, 0]]]
    words = to_numpy(pa.array([["a"], ["b", "c"]]), entry("string", (None,)))
    assert words.tolist() == [["a", ""], ["b", "c"]]


@pytest.mark.parametrize(
    ("column", "shape", "message"),
    [
        (pa.array([1.0, None], pa.float32()), (), "'the x': null in 1 of 2"),
        (pa.array([[1.0], None], pa.list_(pa.float32())), (1,), "'the x': null in 1 of 2"),
        (pa.array([[1.0, None]], pa.list_(pa.float32())), (2,), "'the x': null inside an array"),
        (pa.array([[1.0], [1, 2]], pa.list_(pa.float32())), (1,), "1 of 2 rows have the wrong"),
        (pa.array([[1.0] * 3], pa.list_(pa.float32())), (None, 2), "no multiple of 2"),
    ],
)
def test_what_no_model_takes_names_its_column(column, shape, message):
    with pytest.raises(DataError, match=message):
        to_numpy(column, entry(shape=shape))


def test_a_null_outside_a_slice_is_no_null_of_it():
    column = pa.array([None, [1.0], [2.0]], pa.list_(pa.float32()))
    assert to_numpy(column.slice(1), entry(shape=(1,))).tolist() == [[1.0], [2.0]]


# --- outputs to Arrow ---


@pytest.mark.parametrize(
    ("values", "dtype", "shape", "expected", "spark_type"),
    [
        (np.float32([[1], [2]]), "float32", (1,), [1.0, 2.0], "float"),
        (np.float64([1, 2]), "float64", (), [1.0, 2.0], "double"),
        (np.float16([1, 2]), "float16", (), [1.0, 2.0], "float"),
        (np.uint8([1, 255]), "uint8", (), [1, 255], "smallint"),
        (np.int64([[1, 2], [3, 4]]), "int64", (2,), [[1, 2], [3, 4]], "array<bigint>"),
        (
            np.arange(12).reshape(2, 3, 2),
            "int64",
            (3, None),
            [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]],
            "array<array<bigint>>",
        ),
        (np.array(["é".encode(), b""], object), "string", (), ["é", ""], "string"),
        (np.array([True, False]), "bool", (), [True, False], "boolean"),
    ],
)
def test_outputs(values, dtype, shape, expected, spark_type):
    output = ModelOutput(dtype=dtype, shape=shape)
    assert to_arrow(values, "y", output).to_pylist() == expected
    assert output.spark_type == spark_type


def test_an_output_of_another_shape_is_refused():
    with pytest.raises(ModelError, match=r"output 'y' has shape \[2, 3\].*\[None, 4\]"):
        to_arrow(np.zeros((2, 3), np.float32), "y", ModelOutput(dtype="float32", shape=(4,)))


def test_an_output_without_a_spark_type_is_refused():
    with pytest.raises(ValueError, match="'complex64' has no Spark type"):
        ModelOutput(dtype="complex64")


# --- batches ---


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 9])
def test_the_model_gets_at_most_a_batch_at_once(rows):
    sizes = []

    def double(inputs):
        sizes.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2}

    task = ScoringTask(
        path="",
        checksum="",
        features=(entry(),),
        outputs={"y": ModelOutput(dtype="float32")},
        columns={"y": "prediction"},
        batch_size=4,
    )
    column = pa.array(np.arange(rows, dtype=np.float32))
    out = Predictor(double, task).predict([column])
    assert out.to_pylist() == [{"prediction": 2.0 * i} for i in range(rows)]
    assert sum(sizes) == rows
    assert max(sizes, default=0) <= 4


# --- matching ---


def test_columns_that_fit():
    spec = FeatureSpec(
        entries=(
            SpecEntry(name="a", column="a", dtype="float32", source_type="decimal(9,2)"),
            SpecEntry(name="b", column="b", dtype="int64", shape=(None,)),
            SpecEntry(name="c", column="c", dtype="float32"),
        )
    )
    table = {"a": "decimal(9,2)", "b": "array<smallint>", "c": "double"}
    check_columns(spec.features, table, model="m")


@pytest.mark.parametrize("kind", ["string", "decimal(9,3)", "array<float>", "bigint"])
def test_columns_that_do_not_fit(kind):
    fits = entry(source_type="decimal(9,2)")
    with pytest.raises(ModelError, match="expected float"):
        check_columns([fits], {"the x": kind}, model="m")


def test_a_dataset_s_own_table_has_the_inputs_names():
    assert locate(entry(), ["x", "y"]) == "x"
    assert locate(entry(), ["x", "the x"]) == "the x"
    assert locate(entry(), ["y"]) == "the x"


def test_taken_names_are_compared_without_case():
    check_new_columns(["prediction"], ["predictions"])
    with pytest.raises(ModelError, match="columns prediction already"):
        check_new_columns(["prediction"], ["Prediction"])


# --- which model ---


def _run(runs, name, *, ended, status=JobState.SUCCEEDED, versions=(1,), **metrics):
    paths = RunPaths(runs=str(runs), run_id=name)
    JobStatus(job="train", id=name, status=status, ended=ended, metrics=metrics).write(paths.status)
    for version in versions:
        _model(runs / name / "model" / str(version), name, version)


def _model(folder, run_id, version):
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(f"{run_id} {version}".encode())
    (folder / "feature_spec.json").write_text(FeatureSpec(entries=(entry(),)).to_json())
    facts = {
        "run_id": run_id,
        "version": version,
        "checksum": folder_checksum(str(folder)),
        "outputs": {"y": {"dtype": "float32", "shape": [1]}},
        "versions": {"keras": "3"},
    }
    (folder / MODEL_FILE).write_text(json.dumps(facts))


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    _run(folder, "b-first", ended="2026-01-01", versions=(1, 2, 10), val_loss=0.1, auc=0.7)
    _run(folder, "a-second", ended="2026-01-02", val_loss=0.3, auc=0.9)
    _run(folder, "failed", ended="2026-01-03", status=JobState.FAILED, versions=(), val_loss=0.0)
    (folder / "notes.txt").write_text("no run")
    (folder / "prepare-1").mkdir()
    return folder


@pytest.mark.parametrize(
    ("model", "metric", "run_id", "version"),
    [
        ("latest", None, "a-second", 1),
        ("best", "val_loss", "b-first", 10),
        ("best", "auc", "a-second", 1),
        ("b-first", None, "b-first", 10),
    ],
)
def test_models_are_found(runs, model, metric, run_id, version):
    ref = resolve_model(model, runs=runs, metric=metric)
    assert (ref.run_id, ref.version) == (run_id, version)
    assert ref.path == str(runs / run_id / "model" / str(version))
    assert ref.checksum == folder_checksum(ref.path)


def test_a_run_that_diverged_is_never_the_best_but_may_be_the_latest(runs):
    _run(runs, "diverged", ended="2026-02-01", val_loss=math.nan, auc=math.inf, loss=math.nan)
    assert resolve_model("latest", runs=runs).run_id == "diverged"
    assert resolve_model("best", runs=runs, metric="val_loss").run_id == "b-first"
    assert resolve_model("best", runs=runs, metric="auc").run_id == "a-second"
    with pytest.raises(ModelError, match="'loss' is finite in no run"):
        resolve_model("best", runs=runs, metric="loss")


def test_a_path_is_taken_as_it_is(runs):
    assert resolve_model(runs / "b-first" / "model" / "2", runs=runs).version == 2


@pytest.mark.parametrize(
    ("model", "metric", "error", "message"),
    [
        ("best", None, ConfigError, "Set `infer.metric`"),
        ("best", "val_los", ModelError, "no run has the metric 'val_los'; did you mean 'val_loss'"),
        ("b-frist", None, ModelError, "no such run in .*did you mean 'b-first'"),
        ("failed", None, ModelError, "has exported no model yet"),
        ("/no/where", None, ModelError, "there is no such folder"),
        ("nope://bucket/model", None, StorageError, "no working client for nope://"),
    ],
)
def test_models_that_are_not_there(runs, model, metric, error, message):
    with pytest.raises(error, match=message):
        resolve_model(model, runs=runs, metric=metric)


def test_without_a_succeeded_run_there_is_no_latest(tmp_path):
    with pytest.raises(ModelError, match=r"no training run in .* has succeeded"):
        resolve_model("latest", runs=tmp_path)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val_loss", "min"), ("mean_absolute_error", "min"), ("accuracy", "max"), ("val_auc", "max")],
)
def test_the_better_side_of_a_metric(metric, mode):
    assert metric_mode(metric) == mode


# --- scoring ids, checksums, errors of tasks ---


def test_a_scoring_id_depends_on_every_fact():
    facts = {"table": "/t", "version": 3, "where": None, "output": "/o"}
    first = default_scoring_id("sha256:0", **facts)
    assert first == default_scoring_id("sha256:0", **facts)
    others = [
        default_scoring_id("sha256:1", **facts),
        *(
            default_scoring_id("sha256:0", **{**facts, key: value})
            for key, value in (("table", "/u"), ("version", 4), ("where", "x"), ("output", "/p"))
        ),
    ]
    assert len({first, *others}) == 6


def test_a_checksum_is_of_names_and_contents(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "variables" / "data").write_bytes(b"1")
        (tmp_path / name / "graph").write_bytes(b"2")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert folder_checksum(one) == folder_checksum(two)
    (tmp_path / "two" / MODEL_FILE).write_text("{}")
    assert folder_checksum(one) == folder_checksum(two)
    (tmp_path / "two" / "variables" / "data").write_bytes(b"3")
    assert folder_checksum(one) != folder_checksum(two)
    (tmp_path / "two" / "variables" / "data").write_bytes(b"1")
    (tmp_path / "two" / "graph").rename(tmp_path / "two" / "Graph")
    assert folder_checksum(one) != folder_checksum(two)
    with pytest.raises(StorageError, match="no such folder"):
        folder_checksum(str(tmp_path / "three"))


def test_the_error_of_a_task_is_found_in_spark_s():
    text = (
        "Job aborted.\nTraceback (most recent call last):\n  File x, line 1\n"
        "spark_dl.errors.DataError: column 'a': null\nsecond line\n\n\tat org.apache.spark.X\n"
    )
    found = task_error(RuntimeError(text))
    assert isinstance(found, DataError)
    assert str(found) == "column 'a': null\nsecond line"
    assert task_error(RuntimeError("ValueError: no")) is None
    assert task_error(RuntimeError("spark_dl.errors.dataclass: no")) is None
    assert issubclass(DataError, SparkDLError)

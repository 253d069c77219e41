"""The three jobs as users run them: `python`, `spark-submit` and `spark-dl`, one YAML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from shells import plain_environ

import spark_dl
from spark_dl.storage import JobState, JobStatus

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(spark_dl.__file__).parent.parent
ROWS = 300

MODEL = """
import keras

def build(spec, params):
    inputs = {f.name: keras.Input((), name=f.name) for f in spec.features}
    columns = [keras.layers.Reshape((1,))(t) for t in inputs.values()]
    output = keras.layers.Dense(1, name="y")(keras.layers.Concatenate()(columns))
    model = keras.Model(inputs, output)
    model.compile(optimizer=keras.optimizers.SGD(params["rate"]), loss="mse")
    return model

def broken(spec, params):
    raise RuntimeError("the user's own mistake")

def loop(ctx):
    import numpy as np
    model = build(ctx.spec, ctx.params)
    total = ctx.all_reduce([float(ctx.rank + 1)], "sum")[0]
    ctx.report(1, rank_sum=float(np.asarray(total)))
    return model
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A user's folder: a table, a model file and a config."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("project")
    (folder / "linear_model.py").write_text(MODEL)
    numbers = [float(i % 17) / 17 for i in range(ROWS)]
    table = pa.table(
        {
            "id": pa.array(range(ROWS), pa.int64()),
            "a": pa.array(numbers, pa.float32()),
            "y": pa.array([2 * n + 1 for n in numbers], pa.float32()),
            "note": pa.array([f"row {i}" for i in range(ROWS)]),
        }
    )
    pq.write_table(table, folder / "table.parquet")
    config = {
        "table": {"path": str(folder / "table.parquet"), "format": "parquet"},
        "features": ["a"],
        "label": "y",
        "id": "id",
        "dataset": {"path": str(folder / "dataset"), "seed": 7},
        "model": {"fn": "linear_model:build", "params": {"rate": 0.1}},
        "training": {"epochs": 2, "global_batch_size": 20, "seed": 1},
        "cluster": {"backend": "auto", "num_workers": 2},
        "tensorboard": {"enabled": False},
        "runs": str(folder / "runs"),
        "run_id": "run-1",
        "infer": {"model": "latest", "split": "test"},
        "output": {"path": str(folder / "predictions")},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    return folder


def start(command, project, **environ):
    """Run a job from another folder, as a scheduler would."""
    return subprocess.run(
        [*command, "--config", str(project / "job.yaml")],
        env=plain_environ() | environ,
        cwd=project,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def last_line(done, code=0):
    assert done.returncode == code, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def script(name):
    return str(ROOT / "jobs" / f"{name}.py")


def spark_submit(*arguments):
    import pyspark

    home = os.path.dirname(pyspark.__file__)
    jars = os.pathsep.join(str(jar) for jar in sorted((ROOT / "build" / "jars").glob("*.jar")))
    command = [
        os.path.join(home, "bin", "spark-submit"),
        *("--master", "local-cluster[2,1,1024]"),
        *("--conf", "spark.ui.enabled=false"),
        *("--jars", jars.replace(os.pathsep, ",")),
        *arguments,
    ]
    return command, {"SPARK_HOME": home, "PYSPARK_PYTHON": sys.executable}


@pytest.fixture(scope="module")
def prepared(project):
    """The last line of `python jobs/prepare.py`."""
    return last_line(start([sys.executable, script("prepare")], project))


def test_one_yaml_from_table_to_predictions(project, prepared, cluster_spark):
    assert prepared["job"] == "prepare"
    assert sum(prepared["rows"].values()) == ROWS

    command, environ = spark_submit("--py-files", str(project / "linear_model.py"), script("train"))
    trained = last_line(start(command, project, **environ))
    assert (trained["job"], trained["run_id"], trained["status"]) == ("train", "run-1", "succeeded")
    status = JobStatus.read(str(project / "runs" / "run-1" / "status.json"))
    assert status.status is JobState.SUCCEEDED

    console = os.path.join(sysconfig.get_path("scripts"), "spark-dl")
    inferred = last_line(start([console, "infer"], project))
    assert inferred["rows"] == prepared["rows"]["test"]
    assert inferred["model_run_id"] == "run-1"
    # the same question again is answered already: nothing is added
    again = last_line(start([console, "infer"], project))
    assert again["scoring_id"] == inferred["scoring_id"]

    rows = cluster_spark.read.format("delta").load(inferred["output"])
    assert rows.count() == inferred["rows"]
    lineage = ["model_run_id", "model_version", "scoring_id"]
    assert rows.columns == ["id", "a", "y", "note", "prediction", *lineage]
    properties = cluster_spark.sql(f"SHOW TBLPROPERTIES delta.`{inferred['output']}`").collect()
    told = {row.key: row.value for row in properties}
    assert told["spark_dl.model_run_id"] == "run-1"
    assert '"name":"a"' in told["spark_dl.feature_spec"]


def test_a_loop_of_ones_own_by_yaml(project, prepared):
    settings = {"model.fn": "null", "model.train_fn": "linear_model:loop", "run_id": "own"}
    command = [sys.executable, script("train")]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    trained = last_line(start(command, project, PYTHONPATH=str(project)))
    assert (trained["run_id"], trained["status"]) == ("own", "succeeded")
    assert trained["metrics"]["rank_sum"] == 3  # both ranks' numbers
    assert (project / "runs" / "own" / "model" / "1" / "model.json").exists()


def test_a_users_mistake_exits_with_2_and_says_so(project, prepared):
    command = [sys.executable, script("train"), "--set", "model.fn=linear_model:broken"]
    command += ["--set", "run_id=broken", "--set", "cluster.backend=barrier"]
    done = start(command, project, PYTHONPATH=str(project))
    answer = last_line(done, code=2)
    assert answer["status"] == "failed"
    assert "the user's own mistake" in json.dumps(answer)
    assert "RuntimeError: the user's own mistake" in done.stderr
    status = JobStatus.read(str(project / "runs" / "broken" / "status.json"))
    assert status.error.error_class == "TrainingFailedError"

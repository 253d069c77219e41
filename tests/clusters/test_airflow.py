"""The DAGs, run by a real Airflow, the jobs by real executors: how tasks end is how jobs ended."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest
import yaml
from clusters.airflow.installation import PROVIDER, Airflow, airflow_programs
from clusters.environment import ROOT, run
from clusters.guide import blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

#: Dies once, as a worker that the system kills for its memory does; then it is the project's model.
MORTAL = """
import os
import signal

import model


def build(spec, params):
    try:
        os.close(os.open(params["marker"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return model.build(spec, {})
    os.kill(os.getpid(), signal.SIGKILL)
"""


#: Appended to the project's model.
TELLS = """

import spark_dl

with open({file!r}, "w") as told:
    told.write(spark_dl.__file__)
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    return Airflow(airflow_programs(), tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="module")
def project(airflow, environment):
    """The project that `spark-dl init` writes, in Airflow's folder of DAGs."""
    done = airflow.shell(f"spark-dl init shop --into {airflow.dags}")
    assert done.returncode == 0, done.stderr
    folder = airflow.dags / "shop"
    run(environment.python, "make_data.py", cwd=folder)
    with open(folder / "model.py", "a") as model:
        model.write(TELLS.format(file=str(folder / "package")))
    text = (ROOT / "dags" / "spark_dl_train.py").read_text()
    (airflow.dags / "spark_dl_train.py").write_text(text.replace("minutes=2", "seconds=1"))
    return folder


def settings(project, name, *, root=None, **changes):
    """Write a config with paths that hold wherever a job starts, and return where it is."""
    root = root or project
    values = yaml.safe_load((project / "job.yaml").read_text())
    values["table"]["path"] = f"{root}/data/visits.parquet"
    values["dataset"]["path"] = f"{root}/{name}/dataset"
    values["output"]["path"] = f"{root}/{name}/predictions"
    values["runs"] = f"{root}/{name}/runs"
    path = project / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return str(path)


@pytest.mark.smoke
def test_the_dag_of_a_new_project_runs_from_table_to_predictions(airflow, project, environment):
    done = airflow.test("shop", python=environment.python)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert "/site-packages/spark_dl/" in (project / "package").read_text(), "the workers'"
    assert {state for state, _ in airflow.tasks("shop").values()} == {"success"}
    told = airflow.xcom("shop", "train")
    assert told["metrics"]["val_accuracy"] > 0.7
    assert told["return_value"]["path"] == f"{project}/runs/{told['run_id']}"
    scored = pq.read_table(project / "data" / "predictions")
    assert set(scored["model_run_id"].to_pylist()) == {told["run_id"]}
    rows = airflow.xcom("shop", "prepare")["metrics"]
    assert scored.num_rows == rows["rows_test"]


def test_the_page_as_it_stands(airflow, project, environment):
    folder = airflow.dags.parent / "page"
    folder.mkdir()
    (folder / "environment").symlink_to(Path(environment.python).parents[1])
    shutil.copy(project / "model.py", folder)
    shutil.move(settings(project, "page"), folder / "job.yaml")
    places = {"airflow.folder": f"{folder}/", "airflow.master": '"host": "local-cluster[2,1,1024]"'}
    page = blocks("airflow.md", places)
    assert PROVIDER in page["installation"]
    (airflow.dags / "visits.py").write_text(page["dag"])
    done = airflow.shell(page["environment"] + page["try"])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    states = {task: state for task, (state, _) in airflow.tasks("visits").items()}
    assert states == {"prepare": "success", "train": "success"}
    assert airflow.xcom("visits", "train")["return_value"]["status"] == "succeeded"


def test_what_nobody_can_help_fails_for_good_at_the_first_try(airflow, project, environment):
    config = settings(project, "wrong", label="boughtt")
    conf = {"config": config, "py_files": str(project / "model.py")}
    done = airflow.test("spark_dl_train", python=environment.python, conf=conf)
    assert done.returncode != 0
    assert "did you mean 'bought'?" in done.stdout + done.stderr
    tasks = airflow.tasks("spark_dl_train")
    assert tasks["prepare"] == ("failed", 1)
    assert tasks["train"][0] == "upstream_failed"


def test_a_worker_that_was_lost_is_tried_again_as_the_same_run(airflow, project, environment):
    (project / "mortal.py").write_text(MORTAL)
    model = {"fn": "mortal:build", "params": {"marker": str(project / "marker")}}
    cluster = {"num_workers": 2, "max_restarts": 0}
    config = settings(project, "lost", model=model, cluster=cluster)
    conf = {
        "config": config,
        "py_files": f"{project}/model.py,{project}/mortal.py",
        "epochs": 2,
    }
    done = airflow.test("spark_dl_train", python=environment.python, conf=conf)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert airflow.tasks("spark_dl_train")["train"] == ("success", 2)
    told = airflow.xcom("spark_dl_train", "train")
    assert told["return_value"]["attempt"] == 2
    epochs = (project / "lost" / "runs" / told["run_id"] / "metrics.jsonl").read_text()
    assert epochs.count('"scope": "epoch"') == 2 * 2, (
        "epochs of the parameter, train and validation"
    )


@pytest.fixture(scope="module")
def yarn(hadoop, environment, tmp_path_factory):
    """What makes the DAG's connection and Spark's defaults those of YARN, in cluster mode."""
    defaults = {
        "spark.yarn.jars": f"local:{os.path.dirname(pyspark.__file__)}/jars/*",
        "spark.pyspark.python": environment.python,
        "spark.yarn.appMasterEnv.PYSPARK_PYTHON": environment.python,
        "spark.executor.instances": "2",
        "spark.executor.memory": "512m",
        "spark.executor.memoryOverhead": "2g",
        "spark.driver.memory": "512m",
        "spark.driver.memoryOverhead": "1g",
        "spark.dynamicAllocation.enabled": "false",
        "spark.yarn.maxAppAttempts": "1",
    }
    folder = tmp_path_factory.mktemp("spark-conf")
    lines = [f"{name} {value}\n" for name, value in defaults.items()]
    (folder / "spark-defaults.conf").write_text("".join(lines))
    connection = {"conn_type": "spark", "host": "yarn", "extra": {"deploy-mode": "cluster"}}
    return {
        **hadoop.environ,
        "SPARK_CONF_DIR": str(folder),
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(connection),
    }


def test_on_yarn_in_cluster_mode_the_status_tells(
    airflow, project, environment, hadoop, yarn, tmp_path
):
    root = f"{hadoop.uri}/{tmp_path.name}"  # a second try has its own
    hadoop.fs("-mkdir", "-p", f"{root}/data")
    hadoop.fs("-put", str(project / "data" / "visits.parquet"), f"{root}/data/visits.parquet")
    config = settings(project, "yarn", root=root)
    conf = {"config": config, "py_files": str(project / "model.py")}
    done = airflow.test("spark_dl_train", python=environment.python, conf=conf, environ=yarn)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    # spark-submit prints nothing of the driver's there
    told = airflow.xcom("spark_dl_train", "train")
    assert told["metrics"]["val_accuracy"] > 0.7
    assert told["return_value"]["path"] == f"{root}/yarn/runs/{told['run_id']}"
    assert "_SUCCESS" in hadoop.fs("-ls", "-C", f"{root}/yarn/predictions")
    wrong = {**conf, "config": settings(project, "wrong", root=root, label="boughtt")}
    done = airflow.test("spark_dl_train", python=environment.python, conf=wrong, environ=yarn)
    assert done.returncode != 0
    assert "did you mean 'bought'?" in done.stdout + done.stderr
    assert airflow.tasks("spark_dl_train")["prepare"] == ("failed", 1)

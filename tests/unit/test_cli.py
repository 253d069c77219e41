"""The console script and the jobs: exit codes, the last line, signals."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import spark_dl
from spark_dl.cli import main, run
from spark_dl.cli.run import Terminated, run_job
from spark_dl.errors import (
    CancelledError,
    ClusterError,
    ConfigError,
    DataError,
    RankFailure,
    TrainingFailedError,
    WorkerLostError,
)
from spark_dl.versions import installed_spark_line

JOBS = Path(__file__).parents[2] / "jobs"
TRAIN = ["--set", "dataset.path=d", "--set", "model.fn=a:b", "--set", "runs=r"]


@pytest.fixture
def pipeline(monkeypatch):
    """Let a function stand for session and pipeline."""

    def put(step):
        monkeypatch.setattr(run, "_in_session", step)

    return put


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def raising(error):
    def step(job, config):
        raise error

    return step


def test_a_job_that_ends_well_exits_0_and_tells_in_its_last_line(pipeline, capsys):
    pipeline(
        lambda job, config: {"run_id": "r1", "status": "succeeded", "n": config.training.epochs}
    )
    assert run_job("train", [*TRAIN, "--set", "training.epochs=3"]) == 0
    assert last_line(capsys) == {"job": "train", "run_id": "r1", "status": "succeeded", "n": 3}


def test_the_last_line_is_json_also_when_a_run_diverged(pipeline, capsys):
    metrics = {"loss": math.nan, "val_loss": -math.inf, "mae": [math.inf, 1.5]}
    pipeline(lambda job, config: {"metrics": metrics, "note": "NaN"})
    assert run_job("train", TRAIN) == 0
    line = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert line["metrics"] == {"loss": None, "val_loss": None, "mae": [None, 1.5]}
    assert line["note"] == "NaN"


def test_backend_is_short_for_a_setting(pipeline, capsys):
    pipeline(lambda job, config: {"backend": config.cluster.backend})
    assert run_job("train", [*TRAIN, "--backend", "barrier"]) == 0
    assert last_line(capsys)["backend"] == "barrier"


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ConfigError("wrong"), 2, "failed"),
        (DataError("null label"), 2, "failed"),
        (TrainingFailedError("boom"), 2, "failed"),
        (ClusterError("no slots yet"), 75, "failed"),
        (WorkerLostError("gone"), 75, "failed"),
        (CancelledError("stopped"), 130, "cancelled"),
        (KeyboardInterrupt(), 130, "cancelled"),
        (Terminated(), 143, "cancelled"),
        (ValueError("a defect"), 1, "failed"),
        (MemoryError(), 1, "failed"),
    ],
)
def test_every_error_has_its_exit_code_and_a_last_line(error, code, status, pipeline, capsys):
    pipeline(raising(error))
    assert run_job("train", TRAIN) == code
    line = last_line(capsys)
    assert line["job"] == "train"
    assert line["status"] == status
    assert line["error"]["class"] == type(error).__name__
    assert line["error"]["message"] == str(error)
    assert line["error"]["retryable"] is (code == 75)


def test_a_failed_rank_is_in_the_last_line(pipeline, capsys):
    failure = RankFailure(rank=1, host="h", error="ValueError", message="boom")
    pipeline(raising(TrainingFailedError.from_failures([failure])))
    assert run_job("train", TRAIN) == 2
    assert last_line(capsys)["error"]["rank"] == 1


def test_a_defect_leaves_its_traceback_and_a_users_mistake_does_not(pipeline, caplog):
    pipeline(raising(ValueError("a defect")))
    run_job("train", TRAIN)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]
    caplog.clear()
    pipeline(raising(DataError("null label")))
    run_job("train", TRAIN)
    assert not any(record.exc_info for record in caplog.records)
    assert "null label" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "/no/such.yaml"], "cannot read the config"),
        (["--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["--confg", "x"], "unrecognized arguments"),
        (["--backend", "mpi"], "invalid choice"),
        ([], "`train` needs dataset, model, runs"),
    ],
)
def test_a_wrong_command_line_is_exit_2_with_a_last_line(arguments, part, pipeline, capsys):
    pipeline(raising(AssertionError("Spark must not be started")))
    assert run_job("train", arguments) == 2
    line = last_line(capsys)
    assert line["error"]["class"] == "ConfigError"
    assert part in line["error"]["message"]


def test_sigterm_cancels_and_the_handler_is_put_back(pipeline, capsys):
    def step(job, config):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    before = signal.getsignal(signal.SIGTERM)
    pipeline(step)
    assert run_job("train", TRAIN) == 143
    assert last_line(capsys)["status"] == "cancelled"
    assert signal.getsignal(signal.SIGTERM) is before


def test_main_hands_the_rest_to_the_job(pipeline, capsys):
    pipeline(lambda job, config: {"ran": job})
    assert main(["train", *TRAIN]) == 0
    assert last_line(capsys)["ran"] == "train"


def test_help_of_a_job_is_no_failure(capsys):
    assert main(["infer", "--help"]) == 0
    assert "--config" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"spark-dl {spark_dl.__version__}\n"


def test_jar_prints_the_path(tmp_path, monkeypatch, capsys):
    jar = tmp_path / "spark-dl-connector_2.12-0.1.0.jar"
    jar.touch()
    monkeypatch.setenv("SPARK_DL_JARS_DIR", str(tmp_path))
    assert main(["jar", "--spark", "3.5"]) == 0
    assert capsys.readouterr().out == f"{jar}\n"


@pytest.mark.parametrize(
    ("arguments", "scala"),
    [
        ([], installed_spark_line().scala),
        (["--spark", "4.1"], "2.13"),
        (["--spark", "3.5"], "2.12"),
    ],
)
def test_jar_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch, capsys, arguments, scala):
    monkeypatch.setattr("spark_dl._jvm._PACKAGE", str(tmp_path / "spark_dl"))
    monkeypatch.delenv("SPARK_DL_JARS_DIR", raising=False)
    assert main(["jar", *arguments]) == 2
    message = capsys.readouterr().err
    assert f"spark-dl-connector_{scala}-0.1.0.jar was not found" in message
    assert "make jars" in message


def test_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert "training" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("job", ["prepare", "train", "infer", "evaluate"])
def test_jobs_are_the_same_code(job):
    script = JOBS / f"{job}.py"
    done = subprocess.run(
        [sys.executable, str(script), "--set", "labl=x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["job"] == job
    assert "did you mean 'label'" in line["error"]["message"]
    assert "did you mean 'label'" in done.stderr
    assert len(script.read_text().splitlines()) <= 60

"""A client that has neither Java nor Spark nor TensorFlow trains, watches, stops and predicts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clusters.connect.packages import CLIENT, connect_client, servers_python
from clusters.connect.server import connect_server, executor_logs
from clusters.guide import blocks, user_environ
from clusters.watched import check_channel, watching
from shells import INTERRUPTIBLE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SCRIPT = Path(__file__).parent / "connect" / "client.py"
DEADLINE_S = 300


@pytest.fixture(scope="module")
def servers_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(tmp_path_factory, servers_folder) -> Iterator[str]:
    python = servers_python(tmp_path_factory.mktemp("python"))
    with connect_server(servers_folder, python) as url:
        yield url


def client(server: str, folder: Path, steps: str):
    """Start the client's steps."""
    return program(folder, "-P", SCRIPT, server, folder, steps)


@contextlib.contextmanager
def program(folder: Path, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Start a program of the client's Python, where no program of Java can be found."""
    environ = user_environ([], {"PATH": str(folder / "no-programs")})
    environ.pop("JAVA_HOME", None)
    environ.pop("SPARK_HOME", None)
    with (
        open(folder / "client.log", "w") as log,
        subprocess.Popen(
            [*INTERRUPTIBLE, connect_client(), *words],
            env=environ,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], folder: Path) -> dict[str, dict]:
    """Wait for the client's end, which must be a good one, and return what it said of each step."""
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, (folder / "client.log").read_text()[-8000:]
    steps = [json.loads(line) for line in said.splitlines() if line.startswith('{"step"')]
    return {step["step"]: step for step in steps}


MODELS = """
def model_fn(spec, params):
    import keras

    inputs = {entry.name: keras.Input(entry.shape, name=entry.name) for entry in spec.features}
    merged = keras.layers.Concatenate()([keras.layers.Flatten()(i) for i in inputs.values()])
    model = keras.Model(inputs, keras.layers.Dense(1)(merged))
    model.compile("sgd", "mse")
    return model


"""
TABLE = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.remote({url!r}).getOrCreate()
columns = [f"cast(id % {{n}} as float) as {{name}}" for n, name in ((7, "a"), (5, "b"), (7, "y"))]
spark.range(400).selectExpr("id", *columns).write.parquet("{folder}/table")
spark.stop()
"""
WHERE_OURS_IS = """
import json

print(json.dumps({"step": "page", "file": spark_dl.__file__, "model": run.model_path}))
"""


def test_the_page_as_it_stands(server, servers_folder, tmp_path):
    places = {"connect.server": server, "connect.shared": f"{tmp_path}/"}
    page = blocks("connect.md", places)
    assert CLIENT in page["environment"]
    (tmp_path / "models.py").write_text(watching(MODELS, str(tmp_path), "model_fn"))
    (tmp_path / "table.py").write_text(TABLE.format(url=server, folder=tmp_path))
    (tmp_path / "page.py").write_text(page["client"] + WHERE_OURS_IS)
    with program(tmp_path, "table.py") as process:
        ended(process, tmp_path)
    with program(tmp_path, "page.py") as process:
        told = ended(process, tmp_path)
    assert "/site-packages/spark_dl/" in told["page"]["file"]
    assert Path(told["page"]["model"], "model.keras").exists()
    assert list((tmp_path / "predictions").glob("*.parquet"))
    # here the hub in rank 0's task is what listens
    check_channel(tmp_path, executor_logs(servers_folder))


@pytest.mark.smoke
def test_a_client_without_java_trains_and_predicts(server, tmp_path):
    with client(server, tmp_path, "train") as process:
        told = ended(process, tmp_path)
    assert ".zip/spark_dl/" in told["ship"]["file"], "the executors have it from this session"
    assert sum(told["prepare"]["rows"].values()) == 400
    first, *_, last = told["train"]["loss"]
    assert last < first
    assert told["train"]["model"] == f"{tmp_path}/runs/first/model/1"
    assert told["predict"]["rows"] == 400
    columns = ["id", "a", "b", "y", "prediction", "model_run_id", "model_version", "scoring_id"]
    assert told["predict"]["columns"] == columns
    assert told["jvm"] == {"step": "jvm", "java": "", "py4j": False}


def test_an_error_on_one_worker_reaches_the_client(server, tmp_path):
    with client(server, tmp_path, "fail,tfos") as process:
        told = ended(process, tmp_path)
    assert "boom at" in told["fail"]["text"].splitlines()[0]
    assert told["fail"]["seconds"] < 60
    assert "barrier" in told["tfos"]["text"]


def get(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=30) as page:  # noqa: S310 (http, ours)
        return json.load(page)


def wait_for_curve(status: Path) -> None:
    """Wait until the run's TensorBoard, which is on the client, shows its loss."""
    deadline = time.monotonic() + DEADLINE_S
    tags: dict = {}
    while "epoch/loss" not in tags.get("train", {}):
        assert time.monotonic() < deadline, f"TensorBoard lists {tags}"
        time.sleep(0.2)
        # an OSError: the file is not there yet, or a run has appeared and is not loaded yet
        with contextlib.suppress(OSError):
            if url := json.loads(status.read_text())["tensorboard"]:
                tags = get(f"{url}data/plugin/scalars/tags")


def test_the_client_watches_a_run_and_stops_it(server, tmp_path):
    with client(server, tmp_path, "interrupt") as process:
        status = tmp_path / "runs" / "interrupted" / "status.json"
        wait_for_curve(status)
        os.kill(process.pid, signal.SIGINT)
        told = ended(process, tmp_path)
    assert json.loads(status.read_text())["status"] == "cancelled"
    assert len(told["interrupted"]["loss"]) == 3, "the slots are free again"

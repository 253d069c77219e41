"""A generated project, run as its README says and submitted as `spark-dl submit` prints it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest
from shells import plain_environ

from spark_dl.cli import main

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1200)]

DEADLINE_S = 280
SPARK_DL = [sys.executable, "-c", "import sys; from spark_dl.cli import main; sys.exit(main())"]


def start(command, project, **environ):
    return subprocess.run(
        command,
        env=plain_environ() | environ,
        cwd=project,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def last_line(done):
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("projects")
    assert main(["init", "shop", "--into", str(folder)]) == 0
    done = start([sys.executable, "make_data.py"], folder / "shop")
    assert done.returncode == 0, done.stderr
    return folder / "shop"


def test_its_own_tests_pass(project):
    done = start([sys.executable, "-m", "pytest", "-q", "-p", "no:randomly"], project)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def printed(capsys, *words):
    capsys.readouterr()
    assert main(["submit", *words, "--print"]) == 0
    return capsys.readouterr().out


def test_it_runs_from_table_to_predictions_and_its_run_is_listed(project):
    prepared = last_line(start([*SPARK_DL, "prepare", "--config", "job.yaml"], project))
    assert sum(prepared["rows"].values()) == 2000
    # submitted, not printed: exit code and output are spark-submit's, hence the job's
    submit = [*SPARK_DL, "submit", "train", "--config", "job.yaml", "--conf"]
    trained = last_line(start([*submit, "spark.ui.enabled=false"], project))
    assert trained["metrics"]["val_accuracy"] > 0.7
    inferred = last_line(start([*SPARK_DL, "infer", "--config", "job.yaml"], project))
    assert inferred["rows"] == prepared["rows"]["test"]
    listed = start([*SPARK_DL, "runs", "list"], project).stdout
    assert re.search(rf"{trained['run_id']} +train +succeeded", listed)


@contextlib.contextmanager
def standalone(folder):
    """A master and two workers, each its own process; yields the master's address."""
    import pyspark

    home = os.path.dirname(pyspark.__file__)
    environ = {**os.environ, "SPARK_HOME": home, "SPARK_LOCAL_IP": "127.0.0.1"}
    environ |= {"SPARK_DAEMON_MEMORY": "256m", "PYSPARK_PYTHON": sys.executable}
    with contextlib.ExitStack() as stack:

        def daemon(name, *words):
            log = stack.enter_context(open(folder / f"{name}.log", "w+", encoding="utf-8"))
            command = [f"{home}/bin/spark-class", f"org.apache.spark.deploy.{words[0]}"]
            command += ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0", *words[1:]]
            process = subprocess.Popen(
                command, env=environ, cwd=folder, stdout=log, stderr=subprocess.STDOUT
            )
            stack.callback(process.wait, DEADLINE_S)
            stack.callback(process.kill)
            return folder / f"{name}.log"

        master = wait_for(daemon("master", "master.Master"), r"Starting Spark master at (\S+)")
        for n in range(2):
            size = ["--cores", "1", "--memory", "2g", "--work-dir", str(folder / f"work{n}")]
            log = daemon(f"worker{n}", "worker.Worker", *size, master)
            wait_for(log, r"(Successfully registered) with master")
        yield master


def wait_for(log, pattern):
    """Wait until a log says something; return the part in brackets."""
    end = time.monotonic() + DEADLINE_S
    while not (found := re.search(pattern, log.read_text(encoding="utf-8"))):
        assert time.monotonic() < end, log.read_text(encoding="utf-8")[-3000:]
        threading.Event().wait(0.1)
    return found[1]


def test_the_printed_lines_run_on_a_standalone_cluster(project, tmp_path, capsys):
    config = tmp_path / "job.yaml"
    text = (project / "job.yaml").read_text()
    config.write_text(
        text.replace("data/", f"{project}/data/")
        .replace("data/dataset", "data/standalone")
        .replace("runs: runs", f"runs: {tmp_path}/runs")
    )
    (tmp_path / "model.py").write_text((project / "model.py").read_text())
    with standalone(tmp_path) as master:
        cluster = ["--config", str(config), "--master", master, "--python", sys.executable]
        cluster += ["--memory-overhead", "512m", "--conf", "spark.ui.enabled=false"]
        cluster += ["--conf", "spark.driver.host=127.0.0.1"]
        for job in ("prepare", "train"):
            script = printed(capsys, job, *cluster)
            assert f"--master {master}" in script
            answer = last_line(start(["bash", "-c", script], tmp_path))
    assert answer["status"] == "succeeded"

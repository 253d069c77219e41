"""An executor is told to leave, as its host will be gone soon (decommissioning)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from faults.jobs import TRAIN, caught_at_gate, write_job
from faults.model import DEADLINE_S
from faults.processes import executor
from shells import plain_environ

from spark_dl.runs import finished_run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: The words of Spark's driver when it has taken note.
NOTED = "decommissioned message"


@pytest.fixture
def environ(tmp_path):
    """A shell whose Spark lets executors leave in an orderly way."""
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "spark-defaults.conf").write_text("spark.decommission.enabled true\n")
    return plain_environ() | {"SPARK_CONF_DIR": str(conf)}


def wait_for_line(path, words):
    deadline = time.monotonic() + DEADLINE_S
    while words not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()[-4000:]
        time.sleep(0.1)


def test_an_executor_that_is_told_to_leave_ends_its_training_first(
    dataset, environ, as_if_nothing_happened, tmp_path
):
    write_job(tmp_path, dataset, backend="barrier")
    log = tmp_path / "log"
    with log.open("w") as output:
        driver = subprocess.Popen(
            [sys.executable, str(TRAIN), "--config", "job.yaml"],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        caught, children = caught_at_gate(tmp_path, driver, log)
        os.kill(executor(children[1]), signal.SIGPWR)
        wait_for_line(log, NOTED)
        caught.go()
        assert driver.wait(DEADLINE_S) == 0, log.read_text()[-4000:]
    finally:
        driver.kill()
        driver.wait(DEADLINE_S)
    as_if_nothing_happened(caught, finished_run(caught.paths), attempt=1)

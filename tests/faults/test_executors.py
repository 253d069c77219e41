"""Executors that Spark's own settings make: one with two ranks, one that is told to leave."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from faults.jobs import TRAIN, caught_at_gate, write_job
from faults.model import DEADLINE_S
from faults.processes import executor, parent, strike, wait_for_end, wait_for_the_hit
from shells import plain_environ

from spark_dl.runs import finished_run
from spark_dl.testing import descendants

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: The words of Spark's driver when it has taken note.
NOTED = "decommissioned message"


@pytest.fixture
def drive(dataset, tmp_path):
    """Start a job in a shell whose Spark has settings; give its driver, and its run at the gate."""
    started = []

    def start(backend, **settings):
        write_job(tmp_path, dataset, backend=backend)
        conf, log = tmp_path / "conf", tmp_path / "log"
        conf.mkdir()
        lines = [f"spark.{name} {value}\n" for name, value in settings.items()]
        (conf / "spark-defaults.conf").write_text("".join(lines))
        environ = {"SPARK_CONF_DIR": str(conf), "PYSPARK_PYTHON": sys.executable}
        with log.open("w") as output:
            driver = subprocess.Popen(
                [sys.executable, str(TRAIN), "--config", "job.yaml"],
                cwd=tmp_path,
                env=plain_environ() | environ,
                stdout=subprocess.DEVNULL,
                stderr=output,
            )
        started.append(driver)
        return driver, *caught_at_gate(tmp_path, driver, log)

    yield start
    for driver in started:
        below = descendants(driver.pid)
        driver.kill()
        driver.wait(DEADLINE_S)
        wait_for_end(below)
    wait_for_the_hit()


def ended_well(driver, log):
    assert driver.wait(DEADLINE_S) == 0, log.read_text()[-4000:]


def wait_for_line(path, words):
    deadline = time.monotonic() + DEADLINE_S
    while words not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()[-4000:]
        time.sleep(0.1)


def test_an_executor_that_is_told_to_leave_ends_its_training_first(
    drive, as_if_nothing_happened, tmp_path
):
    """Its host will be gone soon (decommissioning)."""
    driver, caught, children = drive("barrier", **{"decommission.enabled": "true"})
    strike(executor(children[1]), signal.SIGPWR)
    wait_for_line(tmp_path / "log", NOTED)
    caught.go()
    ended_well(driver, tmp_path / "log")
    as_if_nothing_happened(caught, finished_run(caught.paths), attempt=1)


def test_of_two_ranks_on_one_executor_one_is_killed(drive, as_if_nothing_happened, tmp_path):
    """Its neighbour is replaced too, under the same executor."""
    driver, caught, children = drive("tensorflowonspark", master="local-cluster[1,2,1024]")
    (shared,) = {executor(child) for child in children}
    agents = {parent(child) for child in children}
    strike(children[1])
    wait_for_end(children)
    assert agents <= set(descendants(shared)), "the executor's agents live on"
    caught.go()
    ended_well(driver, tmp_path / "log")
    as_if_nothing_happened(caught, finished_run(caught.paths))

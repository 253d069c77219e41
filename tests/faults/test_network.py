"""The cable of a host comes out, is slow, or loses what goes one way; hosts are namespaces."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest
from clusters.environment import ROOT
from clusters.hosts import why_not
from clusters.line import TUN_DEVICE
from clusters.standalone import standalone
from faults.jobs import MODEL, caught_at_gate, write_job
from faults.model import DEADLINE_S
from faults.processes import is_child, wait_for_end

from spark_dl.runs import finished_run
from spark_dl.storage import JobState

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

needs_line = pytest.mark.skipif(not os.path.exists(TUN_DEVICE), reason=f"no {TUN_DEVICE} here")

HOSTS = ("worker1", "worker2", "worker3")
#: The master misses a silent host after 16 to 32 s.
END_S = 400
#: Spark's driver misses one after 17 to 25 s instead of minutes, and never before we do.
SUBMIT = f"""
export SPARK_LOCAL_IP="$ADDRESS"
exec spark-submit --master "spark://$MASTER:7077" --conf "spark.driver.host=$ADDRESS" \\
  --properties-file conf/spark-defaults-standalone.conf --conf spark.cores.max={{executors}} \\
  --conf spark.network.timeout=20s --conf spark.network.timeoutInterval=5s \\
  --conf spark.executor.heartbeatInterval=3s \\
  --py-files "{{folder}}/{MODEL}" jobs/train.py --config "{{folder}}/job.yaml"
"""


@pytest.fixture(params=[len(HOSTS)], ids=["3 hosts"])
def cluster(request, tmp_path):
    """Hosts, by default one more than the run has ranks, with this very Python."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "jars").symlink_to(ROOT / "build" / "jars")
    with standalone(shared, HOSTS[: request.param], Path(sys.prefix)) as made:
        yield made


@pytest.fixture
def drive(cluster, dataset, tmp_path):
    """Start the job on the master's host; give the run at its gate and the host of each rank."""
    started = []

    def start(executors=3, **settings):
        write_job(tmp_path, dataset, backend="barrier", **settings)
        log = tmp_path / "log"
        driver = cluster.start("master", SUBMIT.format(folder=tmp_path, executors=executors), log)
        started.append(driver)
        caught, ranks = caught_at_gate(tmp_path, driver, log)
        places = {pid: host for host in cluster.hosts.values() for pid in host.pids()}
        return driver, caught, [places[pid] for pid in ranks]

    yield start
    # a host that nobody reaches ends what it has of the run by itself
    wait_for_end([pid for host in cluster.hosts.values() for pid in host.pids() if is_child(pid)])
    for driver in started:
        driver.kill()
        driver.wait(DEADLINE_S)


def ended_well(driver, log):
    assert driver.wait(END_S) == 0, log.read_text()[-8000:]


two_hosts = pytest.mark.parametrize("cluster", [2], indirect=True, ids=["2 hosts"])


@pytest.mark.smoke
@two_hosts
def test_the_link_of_a_host_is_cut_for_five_seconds(
    cluster, drive, as_if_nothing_happened, tmp_path
):
    """Shorter than what counts as lost: what was on its way comes late, and nobody notices."""
    driver, caught, hosts = drive(executors=2, lost_after_s=60)
    hosts[1].cut()
    caught.go()
    threading.Event().wait(5)  # it is the fault that lasts so long
    assert driver.poll() is None, "it trained without its second rank"
    hosts[1].mend()
    ended_well(driver, tmp_path / "log")
    as_if_nothing_happened(caught, finished_run(caught.paths), attempt=1)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_link_of_a_host_is_cut_for_good(
    cluster, drive, as_if_nothing_happened, tmp_path, victim
):
    """The run goes on elsewhere; the host that nobody reaches ends what it has of the run."""
    driver, caught, hosts = drive()
    hosts[victim].cut()
    caught.go()
    ended_well(driver, tmp_path / "log")
    as_if_nothing_happened(caught, finished_run(caught.paths))


@needs_line
@two_hosts
def test_the_link_of_a_host_is_slow(cluster, drive, as_if_nothing_happened, tmp_path):
    """Every frame takes 50 ms: a step waits for it, and nobody is lost, blamed or started again."""
    driver, caught, hosts = drive(executors=2, slow_after_s=2)
    with hosts[1].line() as line:
        line.delay_s = 0.05
        caught.go()
        ended_well(driver, tmp_path / "log")
    as_if_nothing_happened(caught, finished_run(caught.paths), attempt=1)
    assert "is slow" not in (tmp_path / "log").read_text()


# a host that hears nothing may still tell Spark that its task has ended, and be tried once more
@needs_line
@pytest.mark.parametrize(("way", "attempts"), [("in", {2, 3}), ("out", {2})], ids=["in", "out"])
def test_the_link_of_a_host_loses_what_goes_one_way(
    cluster, drive, as_if_nothing_happened, tmp_path, way, attempts
):
    """Its connections are half open: one end still sends, and learns of nothing. As if cut."""
    driver, caught, hosts = drive()
    (child,) = filter(is_child, hosts[1].pids())
    with hosts[1].line() as line:
        line.loses = way
        caught.go()
        ended_well(driver, tmp_path / "log")
        attempt = caught.status.attempt
        assert attempt in attempts
        as_if_nothing_happened(caught, finished_run(caught.paths), attempt=attempt)
        wait_for_end([child])


def test_a_host_is_lost_and_spark_finds_another(cluster, drive, as_if_nothing_happened, tmp_path):
    """All slots were the run's: it waits until Spark misses the host and replaces its executor."""
    driver, caught, hosts = drive(executors=2)
    hosts[1].cut()
    caught.go()
    ended_well(driver, tmp_path / "log")
    as_if_nothing_happened(caught, finished_run(caught.paths))


@two_hosts
def test_a_host_is_lost_and_there_is_no_other(cluster, drive, tmp_path):
    driver, caught, hosts = drive(executors=2, start_timeout_s=30)
    hosts[1].cut()
    caught.go()
    log = tmp_path / "log"
    assert driver.wait(END_S) == 75, log.read_text()[-8000:]
    error = json.loads(log.read_text().splitlines()[-1])["error"]
    assert "rank 1 on " in error["message"]
    assert "WorkerLost" in error["message"]
    assert "the loss Spark has no room for 2 workers: 1 task slots, 0 of them" in log.read_text()
    assert error["retryable"]
    assert caught.status.status is JobState.FAILED

"""The cable of a host comes out, on a standalone cluster whose hosts are network namespaces."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from clusters.environment import ROOT
from clusters.hosts import why_not
from clusters.standalone import standalone
from faults.jobs import MODEL, caught_at_gate, write_job
from faults.model import DEADLINE_S
from faults.processes import is_child, wait_for_end

from spark_dl.runs import finished_run

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

#: One more than the run has ranks.
HOSTS = ("worker1", "worker2", "worker3")
SUBMIT = f"""
export SPARK_LOCAL_IP="$ADDRESS"
exec spark-submit --master "spark://$MASTER:7077" --conf "spark.driver.host=$ADDRESS" \\
  --properties-file conf/spark-defaults-standalone.conf --conf spark.cores.max={len(HOSTS)} \\
  --py-files "{{folder}}/{MODEL}" jobs/train.py --config "{{folder}}/job.yaml"
"""


@pytest.fixture
def cluster(tmp_path):
    """Three workers, with this very Python."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "jars").symlink_to(ROOT / "build" / "jars")
    with standalone(shared, HOSTS, Path(sys.prefix)) as made:
        yield made


@pytest.fixture
def drive(cluster, dataset, tmp_path):
    """Start the job on the master's host; give the run at its gate and the host of each rank."""
    started = []

    def start(**settings):
        write_job(tmp_path, dataset, backend="barrier", **settings)
        log = tmp_path / "log"
        driver = cluster.start("master", SUBMIT.format(folder=tmp_path), log)
        started.append(driver)
        caught, ranks = caught_at_gate(tmp_path, driver, log)
        places = {pid: host for host in cluster.hosts.values() for pid in host.pids()}
        return driver, caught, [places[pid] for pid in ranks]

    yield start
    for driver in started:
        driver.kill()
        driver.wait(DEADLINE_S)


def ended_well(driver, log):
    assert driver.wait(DEADLINE_S) == 0, log.read_text()[-8000:]


def test_the_link_of_a_host_is_cut_for_five_seconds(
    cluster, drive, as_if_nothing_happened, tmp_path
):
    """Shorter than what counts as lost: what was on its way comes late, and nobody notices."""
    driver, caught, hosts = drive(lost_after_s=60)
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
    (child,) = filter(is_child, hosts[victim].pids())
    hosts[victim].cut()
    caught.go()
    ended_well(driver, tmp_path / "log")
    as_if_nothing_happened(caught, finished_run(caught.paths))
    wait_for_end([child])

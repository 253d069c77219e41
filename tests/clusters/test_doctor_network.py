"""The doctor on hosts of their own: what lies between them is broken, and mended by its remedy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from clusters.hosts import SHARED, why_not
from clusters.standalone import standalone
from doctors import conf, is_mended, lines_of, only, spark_dl, write_config

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

WORKERS = ("worker1", "worker2")
#: Below those that a host takes by itself: a firewall may tell them from these.
SPARKS = "7000-7100"
OURS = "20000-20010"
#: Where nothing comes, however long one waits.
SOON = ("--deadline-s", "30")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    write_config(folder, seen_at=SHARED)
    with standalone(folder, WORKERS, Path(sys.prefix)) as made:
        yield made


@pytest.fixture
def doctor(cluster):
    """Ask on the master's host, with Spark's own ports where a firewall has them open."""
    address = cluster.hosts["master"].address
    settings = {
        "spark.pyspark.python": sys.executable,
        "spark.driver.host": address,
        "spark.driver.port": 7090,
        "spark.driver.blockManager.port": 7091,
        "spark.blockManager.port": 7092,
    }
    given = [word for pair in settings.items() for word in conf(*pair)]
    asked = [*spark_dl(), "doctor", "--json", "--config", f"{SHARED}/job.yaml", *given]

    def ask(*words, master=f"spark://{address}:7077"):
        done = subprocess.run(
            cluster.hosts["master"].command(*asked, "--master", master, *words),
            env=cluster.on("master") | {"SPARK_LOCAL_IP": address},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        return lines_of(done)

    return ask


def test_executors_that_do_not_reach_the_drivers_port(cluster, doctor):
    driver = cluster.hosts["master"]
    ours = ["--set", f"cluster.ports={OURS}"]
    with cluster.hosts["worker1"].refused(driver, SPARKS):
        report = doctor(*ours)
        assert "worker1 cannot reach the driver" in report["driver port"]["text"]
        remedy = only(report, "driver port")
    assert "open the ports towards it (cluster.ports names a range" in remedy
    with cluster.hosts["worker1"].refused(driver, SPARKS, OURS):
        assert is_mended(doctor(*ours), "driver port")


def test_executors_that_do_not_reach_each_other(cluster, doctor):
    ours = ["--set", f"cluster.ports={OURS}"]
    one, other = (cluster.hosts[name] for name in WORKERS)
    with one.refused(other, SPARKS):
        report = doctor(*ours)
        remedy = only(report, "executor ports")
    assert "open the ports between the executors' hosts (cluster.ports names a range" in remedy
    with one.refused(other, SPARKS, OURS):
        assert is_mended(doctor(*ours), "executor ports")


def test_a_driver_at_an_address_that_executors_do_not_reach(cluster, doctor):
    report = doctor(*conf("spark.driver.host", "192.168.254.5"), *SOON)
    remedy = only(report, "task slots")
    (setting,) = re.findall(r"set (spark\S+) \(now 192\.168\.254\.5\) to an address", remedy)
    assert is_mended(doctor(*conf(setting, cluster.hosts["master"].address)), "task slots")


def test_a_master_that_does_not_answer(cluster, doctor):
    nobody = f"spark://{cluster.hosts['master'].address}:7999"
    assert "--master is reachable" in only(doctor(*SOON, master=nobody), "session")
    assert is_mended(doctor(), "session")


def test_a_folder_of_the_drivers_host(doctor):
    report = doctor("--set", "runs=/mnt/runs")
    remedy = only(report, "storage, executors")
    assert "make /mnt/runs a folder that driver and executors have mounted" in remedy
    assert is_mended(doctor("--set", f"runs={SHARED}/runs"), "storage, executors")

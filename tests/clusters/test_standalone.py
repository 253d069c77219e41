"""The guide for standalone clusters, on hosts of their own; and what a firewall there would see."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from clusters.environment import INSTALLED, ROOT
from clusters.hosts import SHARED, why_not
from clusters.standalone import GUIDE, standalone
from clusters.watched import check_board, check_channel, forget, seen, watching

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

WORKERS = ("worker1", "worker2")


@pytest.fixture(scope="module")
def cluster(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    model = (ROOT / "examples" / "demo" / "model.py").read_text()
    (folder / "model.py").write_text(watching(model, SHARED))
    assert INSTALLED in GUIDE["environment"]  # which is that of the cache
    with standalone(folder, WORKERS, Path(environment.python).parents[1]) as made:
        made.fetched(GUIDE["jars"])
        made.ran(
            "master",
            "spark-submit --properties-file conf/spark-defaults-standalone.conf "
            f"--master 'local[1]' {ROOT}/tests/clusters/make_table.py {SHARED}/digits/table",
        )
        yield made


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"job"')]


def test_the_guide_on_hosts_of_their_own(cluster):
    forget(cluster.folder)
    done = cluster.ran("master", GUIDE["jobs"])
    prepared, trained, inferred = json_lines(done.stdout)
    assert sum(prepared["rows"].values()) == 400
    assert trained["status"] == "succeeded"
    assert inferred["rows"] == prepared["rows"]["test"]
    told = seen(cluster.folder)
    assert {facts["host"] for facts in told} == set(WORKERS)
    # what they published is the address that the others reach: neither the first interface's, nor
    # loopback's as /etc/hosts has it
    published = [address for job in told[0]["cluster"].values() for address in job]
    reached = {cluster.hosts[name].address for name in WORKERS}
    assert {address.rpartition(":")[0] for address in published} == reached
    # TensorFlow's, the control channel's and TensorBoard's ports all lie in cluster.ports
    span = range(40000, 40011)
    for facts in told:
        assert facts["listening"], "TensorFlow's own port"
        assert set(facts["listening"]) <= set(span)
        assert len(set(facts["agent_talks_to"]) & set(span)) == 1, "the control channel"
        # of the driver's networks, two IPv4 and one IPv6, the one that it publishes
        assert facts["channel"]["reached"][0] == cluster.hosts["master"].address
    check_channel(cluster.folder, done.stdout)
    check_board(cluster.folder)
    status = cluster.folder / "digits" / "runs" / trained["run_id"] / "status.json"
    board = urlsplit(json.loads(status.read_text())["tensorboard"])
    assert board.hostname == "127.0.0.1"
    assert board.port in span


def test_a_range_that_is_too_small_is_an_error_that_says_so(cluster):
    # the driver shares its host with a worker: two of the run's ports on a host, in a range of one
    setup, _, jobs = GUIDE["jobs"].partition("$submit jobs")
    prepare, train = (line for line in f"$submit jobs{jobs}".splitlines()[:2])
    narrow = "--set cluster.ports=40000-40000 --set tensorboard.enabled=false"
    done = cluster.ran("worker1", f"{setup}{prepare}\n{train} {narrow}", code=2)
    last = json_lines(done.stdout)[-1]
    message = last["error"]["message"]
    assert "no port of cluster.ports 40000-40000 is free on worker1 for a worker" in message

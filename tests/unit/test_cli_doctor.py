"""The doctor's verdicts: one thing broken turns one line, and each line has its break."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from spark_dl.cli import main
from spark_dl.cli.doctor import CHECKS, as_json, as_text, diagnose, exit_code, tiny_job
from spark_dl.cli.doctor.facts import Facts, HostFacts, PathFacts, Room, SessionFacts, Wishes
from spark_dl.cli.doctor.gather import within
from spark_dl.cli.doctor.installed import NEEDED
from spark_dl.cluster import probe
from spark_dl.cluster.memory import needed_bytes, overhead_bytes
from spark_dl.errors import TimeoutExpiredError
from spark_dl.versions import PRIMARY_SPARK

PACKAGES = dict.fromkeys(NEEDED, "1.0") | {"tensorflow": "2.21.0", "keras": "3.15.1"}
ROOM = Room(free_bytes=8 << 30)
WORKER = HostFacts(
    host="w1",
    python="3.11.7",
    executable="/env/bin/python",
    packages=PACKAGES,
    shm=ROOM,
    disks={"/data/local": ROOM},
    memory_bytes=16 << 30,
    skew_s=0.001,
    peer_problems=(),
    free_ports=11,
    paths={"/runs": PathFacts()},
)
SESSION = SessionFacts(
    version="4.1.4",
    scala="2.13.17",
    master="yarn",
    conf={"spark.executor.memoryOverhead": "2g"},
    slots=2,
    connector=f"/x/{PRIMARY_SPARK.connector_jar}",
    delta_jar="/x/delta-spark_4.1_2.13-4.1.0.jar",
)
WELL = Facts(
    java='openjdk version "17.0.2"',
    pyspark="4.1.4",
    driver=HostFacts(host="d", python="3.11.4", packages=PACKAGES),
    wishes=Wishes(num_workers=2, uses_delta=True, parameters=1000, ports=(40000, 40010)),
    session=SESSION,
    executors=(WORKER, dataclasses.replace(WORKER, host="w2", rank=1)),
    storage={"/runs": None},
)


def session(**changes):
    return dataclasses.replace(WELL, session=dataclasses.replace(SESSION, **changes))


def conf(**changes):
    return session(conf=dict(SESSION.conf) | {k.replace("__", "."): v for k, v in changes.items()})


def worker(**changes):
    return dataclasses.replace(WELL, executors=(WORKER, dataclasses.replace(WORKER, **changes)))


def driver(**changes):
    return dataclasses.replace(WELL, driver=dataclasses.replace(WELL.driver, **changes))


def wishes(**changes):
    return dataclasses.replace(WELL, wishes=dataclasses.replace(WELL.wishes, **changes))


def refused(versions):
    """Give the answer of Spark, a new one or 3.5, to another Python on the executors."""
    problem = f"[PYTHON_VERSION_MISMATCH] Python in worker has different {versions}, PySpark …"
    return dataclasses.replace(WELL, executors=(), executors_problem=problem)


def without(name):
    return {key: version for key, version in PACKAGES.items() if key != name}


BREAKS = [
    ("java", dataclasses.replace(WELL, java='java version "1.8.0_301"'), "error", "JDK 17 or 21"),
    ("java", dataclasses.replace(WELL, java=None), "error", "set JAVA_HOME"),
    ("spark", session(version="4.0.1"), "error", "pip install 'pyspark==4.0.1'"),
    (
        "connector",
        session(connector="/x/spark-dl-connector_2.12-0.1.0.jar"),
        "error",
        "spark.jars=",
    ),
    ("connector", session(connector=None), "error", "make jars"),
    ("delta", session(delta_problem="no Delta: start it with spark.x=y"), "error", "set spark.x=y"),
    ("delta", session(delta_jar="/x/delta-spark_2.13-4.0.0.jar"), "warning", "delta-spark_4.1"),
    ("dynamic allocation", conf(spark__dynamicAllocation__enabled="true"), "error", "instances"),
    ("task slots", wishes(num_workers=3), "error", "cluster.num_workers to 2"),
    ("task slots", session(slots=0), "error", "cluster's UI"),
    ("pyspark memory", conf(spark__executor__pyspark__memory="2g"), "error", "unset"),
    (
        "memory overhead",
        conf(spark__executor__memoryOverhead="512"),
        "error",
        "memoryOverhead=1024m",
    ),
    ("memory overhead", wishes(parameters=100_000_000), "error", "memoryOverhead=2816m"),
    ("executor python", refused("version: 3.12 than that in driver: 3.11"), "error", "the same"),
    ("executor python", refused("version (3, 12) than that in driver 3.11"), "error", "the same"),
    (
        "executor packages",
        worker(packages=without("pandas")),
        "error",
        "pip install 'spark-dl==1.0'",
    ),
    ("executor packages", worker(packages={}), "error", "spark-dl[tensorflow]==1.0"),
    (
        "executor packages",
        worker(packages=PACKAGES | {"spark-dl": "0.9"}),
        "error",
        "spark-dl==1.0",
    ),
    ("executor packages", worker(packages=PACKAGES | {"numpy": "2.0"}), "warning", "numpy==1.0"),
    ("tensorflow", worker(packages=without("tensorflow")), "error", "spark-dl[tensorflow]"),
    ("tensorflow", worker(packages=without("keras")), "error", "spark-dl[tensorflow]"),
    ("tensorflow", worker(packages=PACKAGES | {"tensorflow": "2.15.0"}), "error", ">=2.18"),
    ("tensorflow", worker(packages=PACKAGES | {"tensorflow": "2.20.0"}), "warning", "same"),
    ("host memory", worker(memory_bytes=1 << 28), "warning", "fewer workers"),
    ("gpus", worker(spark_gpus=1, tensorflow_gpus=0), "error", "tensorflow[and-cuda]"),
    ("gpus", worker(spark_gpus=1, tensorflow_gpus="ImportError"), "error", "starts there"),
    ("gpus", worker(gpu_devices=4, tensorflow_gpus=4), "warning", "discoveryScript"),
    ("storage, executors", worker(paths={"/runs": PathFacts(read="gone")}), "error", "mounted"),
    ("driver port", worker(driver_problem="refused"), "error", "spark.driver.host"),
    ("executor ports", worker(peer_problems=("w1:4: refused",)), "error", "open the ports"),
    ("port range", worker(free_ports=0), "error", "widen cluster.ports"),
    ("port range", worker(free_ports=1), "error", "widen cluster.ports"),  # both on one host
    ("port range", worker(free_ports=3), "warning", "two for each"),
    ("port range", driver(free_ports=0), "error", "widen cluster.ports"),
    ("clocks", worker(skew_s=-600.0), "error", "NTP"),
    ("clocks", worker(skew_s=20.0), "warning", "NTP"),
    ("shared memory", worker(shm=Room(free_bytes=1 << 20)), "warning", "remount"),
    ("shared memory", worker(shm=Room(free_bytes=0, problem="gone")), "error", "remount"),
    ("local disk", worker(disks={"/d": Room(free_bytes=1 << 20)}), "error", "spark.local.dir"),
    ("local disk", worker(disks={"/d": Room(free_bytes=500 << 20)}), "warning", "free it"),
]


def levels(facts):
    return {name: finding.level.value for name, finding in diagnose(facts).items()}


def test_when_all_is_well_every_line_is_ok():
    assert set(levels(WELL).values()) == {"ok"}
    assert exit_code(diagnose(WELL), strict=True) == 0


@pytest.mark.parametrize(("name", "facts", "level", "remedy"), BREAKS)
def test_one_thing_broken_turns_its_line_alone(name, facts, level, remedy):
    found = diagnose(facts)
    turned = {n: f.level.value for n, f in found.items()}
    assert {n: x for n, x in turned.items() if x not in ("ok", "skipped")} == {name: level}
    assert remedy in found[name].remedy
    assert exit_code(found, strict=False) == (2 if level == "error" else 0)
    assert exit_code(found, strict=True) == 2


def test_every_line_has_its_break():
    elsewhere = {"python", "session", "executor job", "storage, driver"}
    assert {check.name for check in CHECKS} == {name for name, *_ in BREAKS} | elsewhere


def test_a_driver_with_an_old_python_is_told():
    assert levels(driver(python="3.9.2"))["python"] == "error"


def test_a_path_that_the_driver_cannot_use_is_not_blamed_on_executors():
    broken = dataclasses.replace(WELL, storage={"/runs": "read-only"})
    broken = dataclasses.replace(broken, executors=(dataclasses.replace(WORKER, paths={}),))
    found = levels(broken)
    assert (found["storage, driver"], found["storage, executors"]) == ("error", "skipped")


def test_without_a_session_one_line_is_red_and_the_rest_is_skipped():
    facts = dataclasses.replace(WELL, session=None, session_problem="refused", executors=())
    found = levels(facts)
    assert [name for name, level in found.items() if level == "error"] == ["session"]
    assert found["clocks"] == "skipped"
    assert "refused" in diagnose(facts)["session"].text


@pytest.mark.parametrize(
    ("name", "change"),
    [("java", {"java": None}), ("spark", {"spark_home": "4.0.5"}), ("spark", {"pyspark": None})],
)
def test_what_keeps_a_session_from_starting_is_the_line_that_is_red(name, change):
    facts = dataclasses.replace(WELL, session=None, session_problem="no", executors=(), **change)
    found = levels(facts)
    assert [name for name, level in found.items() if level == "error"] == [name]
    assert found["session"] == "skipped"


def test_without_answers_one_line_is_red_and_the_rest_is_skipped():
    facts = dataclasses.replace(WELL, executors=(), executors_problem="it was ended after 9 s")
    found = levels(facts)
    assert [name for name, level in found.items() if level == "error"] == ["executor job"]
    assert found["tensorflow"] == "skipped"


def test_a_remote_path_that_workers_cannot_open_is_an_error():
    path = "hdfs://n/runs"
    facts = dataclasses.replace(
        WELL,
        storage={path: None},
        executors=(dataclasses.replace(WORKER, paths={path: PathFacts(write="no credentials")}),),
    )
    assert levels(facts)["storage, executors"] == "error"


def test_a_connect_client_is_judged_by_what_it_can_know():
    facts = session(is_connect=True, slots=None, connector=None, master="Spark Connect")
    facts = dataclasses.replace(facts, java=None)
    assert {name for name, level in levels(facts).items() if level != "ok"} == {"task slots"}


def test_the_report_for_people_and_for_scripts():
    found = diagnose(wishes(num_workers=3))
    text = as_text(found)
    assert "ERROR    task slots" in text
    assert "→ set cluster.num_workers" in text
    assert text.endswith("23 ok, 1 error\n")
    report = json.loads(as_json(found))
    assert report["ok"] is False
    assert report["count"] == {"ok": 23, "warning": 0, "error": 1, "skipped": 0}
    assert [c["name"] for c in report["checks"] if c["remedy"]] == ["task slots"]


@pytest.mark.parametrize(
    ("conf", "mib"),
    [
        ({}, 384),
        ({"spark.executor.memory": "10g"}, 1024),
        ({"spark.executor.memoryOverhead": "3g"}, 3072),
        ({"spark.executor.memoryOverhead": "700"}, 700),
        ({"spark.executor.memory": "10g", "spark.executor.memoryOverheadFactor": "0.4"}, 4096),
    ],
)
def test_overhead_is_what_spark_makes_of_its_settings(conf, mib):
    assert overhead_bytes(conf) >> 20 == mib


def test_a_larger_model_needs_more():
    assert needed_bytes(50_000_000) - needed_bytes(None) == 10**9


def test_what_hangs_is_left_and_named():
    with pytest.raises(
        TimeoutExpiredError, match=r"0\.05 s waiting for a stone; raise `--deadline-s`"
    ):
        within(0.05, threading.Event().wait, what="a stone")


def test_a_setting_that_is_none_is_refused(capsys):
    assert main(["doctor", "--conf", "nonsense"]) == 2
    assert "expected key=value" in capsys.readouterr().err


# what the probe sees, with the thing itself broken


def test_the_door_measures_the_difference_of_the_clocks(monkeypatch):
    local = dataclasses.replace(SESSION, conf={"spark.driver.host": "127.0.0.1"})
    with tiny_job._door(local, "secret", None) as address:
        fine = probe._meet_driver({"driver": address, "token": "secret"})
        assert fine["problem"] is None
        assert abs(fine["skew_s"]) < 5
        # a stranger is told nothing
        assert probe._meet_driver({"driver": address, "token": "guess"})["problem"]
        ahead = SimpleNamespace(time=lambda: time.time() + 300)
        monkeypatch.setattr(tiny_job, "time", ahead)
        skewed = probe._meet_driver({"driver": address, "token": "secret"})
    assert 290 < skewed["skew_s"] < 310
    refused = probe._meet_driver({"driver": address, "token": "secret"})
    assert "ConnectionRefusedError" in refused["problem"]


def test_the_door_is_where_a_firewall_lets_workers_through(free_ports):
    local = dataclasses.replace(SESSION, conf={"spark.driver.host": "127.0.0.1"})
    span = free_ports(2)
    with contextlib.ExitStack() as doors:
        ports = [doors.enter_context(tiny_job._door(local, "secret", span))[1] for _ in range(3)]
    assert ports[:2] == list(span)
    assert ports[2] not in span  # that none is left has a line of its own


def test_ports_that_others_hold_are_not_free():
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert probe.free_ports([port, port]) == 0
    assert probe.free_ports([port, port]) == 1
    assert probe.free_ports(None) is None


def test_a_file_of_the_driver_that_is_not_there_or_differs_is_seen(tmp_path):
    mark = tmp_path / "mark"
    assert "FileNotFoundError" in probe._use(str(mark), "x", 0)["read"]
    mark.write_text("another driver's")
    assert "instead of what the driver wrote" in probe._use(str(mark), "x", 0)["read"]
    mark.write_text("x")
    assert probe._use(str(mark), "x", 0) == {"read": None, "write": None}
    assert "NotADirectory" in probe._use(str(mark / "below"), "x", 0)["write"]


def test_a_folder_that_is_no_folder_has_no_room(tmp_path):
    (tmp_path / "file").touch()
    assert probe._room(str(tmp_path / "file"))["problem"].startswith("NotADirectoryError")
    assert probe._room(str(tmp_path))["free_bytes"] > 0


def test_the_probe_is_plain_enough_to_travel():
    facts = probe.look({"packages": ["numpy", "no-such-package"], "timeout_s": 5})
    assert json.loads(json.dumps(facts))["packages"].keys() == {"numpy"}

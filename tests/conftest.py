"""Sessions for the tests, and the order that lets them share one process."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from shells import start_java_quickly
from xdist.scheduler import LoadFileScheduling

from spark_dl.session import EMBEDDED_MASTER, embedded_session

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import ModuleType

    from pyspark.sql import SparkSession

os.environ["TZ"] = "UTC"
time.tzset()

# the machines are shared: how long an example takes says nothing about the code
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo"

start_java_quickly()

# A process has one SparkContext at a time. Tests are run in this order, so that each kind of
# session starts once.
SESSIONS = {
    "spark": "local[2]",
    "cluster_spark": EMBEDDED_MASTER,
    "one_executor_spark": "local-cluster[1,2,1024]",
}

#: Files whose tests take long and share nothing: each test runs where there is room.
ANY_PROCESS = (
    "test_airflow",
    "test_benchmarks",
    "test_cli_project",
    "test_doctor",
    "test_doctor_hosts",
)

#: Files of tests that mostly wait, or that take long and share no session: begun first, so that
#: others work meanwhile and no process has to end with them.
FIRST = ("test_network", "test_soak")

#: What kills processes or starts executors and clusters may be tried a second time: the machines
#: are shared. The run names such tests at its end; everything else must pass at once.
SECOND_TRY = ("cluster", "clusters", "faults", "kills", "matrix")


def _session(item: pytest.Item) -> str | None:
    used = [name for name in SESSIONS if name in getattr(item, "fixturenames", ())]
    if len(used) > 1:
        msg = f"{item.nodeid}: one process cannot hold {' and '.join(used)}"
        raise pytest.UsageError(msg)
    return used[0] if used else None


def _on_hadoop(nodeid: str) -> bool:
    """Tell by its name: who shares the tests among processes knows nothing else of a test."""
    return nodeid.startswith("tests/clusters") and ("yarn" in nodeid or "hadoop" in nodeid)


def _place(item: pytest.Item) -> int:
    """Return when a test runs: the longest groups first, so that processes end together."""
    session = _session(item)
    if item.path.stem in FIRST:
        return -3
    if session is None and item.get_closest_marker("clusters"):
        return -1 - _on_hadoop(item.nodeid)
    if session is not None:
        return list(SESSIONS).index(session)
    return len(SESSIONS) + (item.get_closest_marker("cluster") is None)


def _is_of_this_spark(item: pytest.Item) -> bool:
    """Whether the Spark that is installed has what a test needs of it."""
    needed = [marker.args[0] for marker in item.iter_markers("since_spark")]
    if not needed:
        return True
    installed = importlib.metadata.version("pyspark")
    return all(_numbers(version) <= _numbers(installed) for version in needed)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")[:2]]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group the tests by session, slow files first: processes that share them then end together.

    pytest-randomly has shuffled them before; the sort is stable.
    """
    if left_out := [item for item in items if not _is_of_this_spark(item)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    for item in items:
        if any(item.get_closest_marker(name) for name in SECOND_TRY):
            item.add_marker(pytest.mark.flaky(reruns=1))
    items.sort(key=lambda item: (_place(item), item.path not in slow))


class _Scheduling(LoadFileScheduling):
    """Tests of one file go to one process, those on Hadoop too; others that take long to any."""

    def _split_scope(self, nodeid: str) -> str:
        if _on_hadoop(nodeid):
            return "hadoop"
        file = nodeid.partition("::")[0]
        return nodeid if Path(file).stem in ANY_PROCESS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling | None:
    """Share the tests among processes (xdist's own `loadgroup` does nothing with pytest 9.2)."""
    return _Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def _use(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SparkSession]]:
    """Switch this process to a session of a master and settings; the one before is stopped."""
    conf = {
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
    }
    with contextlib.ExitStack() as running:

        def use(master: str, **further: str) -> SparkSession:
            running.close()
            settings = conf | {f"spark.{name}": value for name, value in further.items()}
            return running.enter_context(embedded_session(master, app_name="tests", conf=settings))

        yield use


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes of the session `spark` one of Spark Connect."""
    told = "tests that take `spark` get a client of a Connect server (test_over_connect.py)"
    parser.addoption("--connect", action="store_true", help=told)
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped is a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport]:
    """Make a failure of a skip where all must run: `make test-matrix`."""
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def spark(
    request: pytest.FixtureRequest,
    _use: Callable[..., SparkSession],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SparkSession]:
    """Spark in local mode, two task slots, with the connector and Delta."""
    if not request.config.getoption("connect"):
        # its workers come and go with failing tasks: they need not import TensorFlow each time
        yield _use(SESSIONS["spark"], **{"python.daemon.module": "spark_dl.testing.daemon"})
        return
    from clusters.connect.session import connect_session

    with connect_session(SESSIONS["spark"], str(tmp_path_factory.mktemp("warehouse"))) as client:
        yield client


@pytest.fixture(scope="session")
def cluster_spark(_use: Callable[..., SparkSession]) -> SparkSession:
    """Two real executors of one core each, and Spark's pages, which are looked at."""
    return _use(SESSIONS["cluster_spark"], **{"ui.enabled": "true", "ui.port": "0"})


@pytest.fixture(scope="session")
def _gpus_of_script(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """Give the settings of a worker, and its executor, with the GPUs that a script names."""

    def settings(*addresses: str) -> dict[str, str]:
        script = tmp_path_factory.mktemp("gpus") / "discover"
        found = json.dumps({"name": "gpu", "addresses": addresses})
        script.write_text(f"#!/bin/sh\necho '{found}'\n")
        script.chmod(0o755)
        return {
            "worker.resource.gpu.amount": str(len(addresses)),
            "worker.resource.gpu.discoveryScript": str(script),
            "executor.resource.gpu.amount": str(len(addresses)),
        }

    return settings


@pytest.fixture(scope="session")
def one_executor_spark(
    _use: Callable[..., SparkSession], _gpus_of_script: Callable[..., dict[str, str]]
) -> SparkSession:
    """One real executor with two cores, which two ranks can share, and two GPUs that are none."""
    return _use(SESSIONS["one_executor_spark"], **_gpus_of_script("3", "5"))


@pytest.fixture(scope="module")
def report() -> Iterator[ModuleType]:
    """The demo's module that writes its report; a script, so it is loaded from its file."""
    pytest.importorskip("matplotlib", reason="the extra `demo` is not installed")
    spec = importlib.util.spec_from_file_location("demo_report", DEMO / "report.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_report"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["demo_report"]


@pytest.fixture
def free_ports() -> Callable[[int], tuple[int, int]]:
    """Give the first and the last of so many ports in a row that nobody has bound."""

    def find(count: int) -> tuple[int, int]:
        while True:
            with contextlib.ExitStack() as stack:
                first = stack.enter_context(socket.create_server(("", 0))).getsockname()[1]
                try:
                    for port in range(first + 1, first + count):
                        stack.enter_context(socket.create_server(("", port)))
                except (OSError, OverflowError):
                    continue
            return first, first + count - 1

    return find

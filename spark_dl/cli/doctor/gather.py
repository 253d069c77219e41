"""Gathering the facts: everything that touches this machine, Spark or storage, with deadlines."""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import re
import secrets
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from spark_dl import _jvm
from spark_dl.cli.doctor.facts import Facts, HostFacts, PathFacts, Room, SessionFacts, Wishes
from spark_dl.cli.doctor.installed import PACKAGES
from spark_dl.cli.doctor.model_size import count_parameters
from spark_dl.cli.doctor.tiny_job import ask_executors
from spark_dl.cluster.probe import free_ports, look
from spark_dl.cluster.resources import expected_slots
from spark_dl.config.environment import java_home, spark_home, take_python_from
from spark_dl.errors import ConfigError, SparkDLError, TimeoutExpiredError
from spark_dl.session import embedded_session, job_session
from spark_dl.storage import Storage, join, normalise
from spark_dl.versions import spark_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pyspark.sql import SparkSession

    from spark_dl.config import JobConfig

__all__ = ["Question", "gather", "session_for", "within"]

T = TypeVar("T")

_POLL_S: Final = 0.2
_JAVA_S: Final = 30.0


class Question:
    """What the doctor was asked.

    Args:
        config: the config, `None` without one.
        master: the cluster; `None`: what the user's settings name.
        conf: settings of Spark.
        deadline_s: most seconds for each thing that may hang.
    """

    def __init__(
        self,
        config: JobConfig | None,
        *,
        master: str | None,
        conf: Mapping[str, str],
        deadline_s: float,
    ) -> None:
        """Keep it."""
        self.config = config
        self.master = master
        self.conf = dict(conf)
        self.deadline_s = deadline_s


def within(seconds: float, act: Callable[[], T], *, what: str) -> T:
    """Return what a function returns, unless it takes too long: then it is left behind.

    Raises:
        TimeoutExpiredError: it did not return in time.
    """
    answer: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(act())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            failure.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not answer:
        raise TimeoutExpiredError.waiting_for(what, seconds, "--deadline-s")
    return answer[0]


@contextlib.contextmanager
def session_for(question: Question) -> Iterator[SparkSession]:
    """Start the session that a job with the same settings would get."""
    from pyspark.sql import SparkSession

    take_python_from(question.conf)
    with contextlib.ExitStack() as stack:
        if question.master is None and not question.conf:
            yield stack.enter_context(job_session("spark-dl doctor"))
            return
        master = question.master or "local-cluster[2,1,1024]"
        if master.startswith("local"):
            yield stack.enter_context(
                embedded_session(master, app_name="spark-dl doctor", conf=question.conf)
            )
            return
        builder = SparkSession.builder.appName("spark-dl doctor")
        for key, value in question.conf.items():
            builder = builder.config(key, value)
        is_connect = master.startswith("sc://")
        session = (builder.remote(master) if is_connect else builder.master(master)).getOrCreate()
        stack.callback(session.stop)
        yield session


def gather(question: Question, spark: SparkSession | None, problem: str | None) -> Facts:
    """Return all facts.

    Args:
        question: what the doctor was asked.
        spark: the session; `None` when there is none.
        problem: why not.
    """
    config = question.config
    wishes = _wishes(config, question.deadline_s)
    storage, marks = _try_storage(config)
    facts: dict[str, Any] = {
        "java": _java(),
        "java_home": java_home(),
        "pyspark": _pyspark(),
        "spark_home": _spark_home_version(),
        "driver": host_facts(_look_here(wishes, question.deadline_s)),
        "wishes": wishes,
        "storage": storage,
        "session_problem": problem,
    }
    try:
        if spark is None:
            return Facts(**facts)
        try:
            session = within(
                question.deadline_s,
                lambda: _session_facts(spark, wishes, question.deadline_s / 2),
                what="Spark to answer",
            )
        except Exception as error:  # noqa: BLE001 - Spark fails in many ways: that is the finding
            return Facts(**{**facts, "session_problem": _jvm.brief_cause(error)})
        executors, why = ask_executors(
            spark,
            session,
            marks,
            ports=wishes.ports,
            num_tasks=wishes.num_workers,
            deadline_s=question.deadline_s,
        )
        return Facts(
            **facts,
            session=session,
            executors=tuple(host_facts(answer, marks) for answer in executors),
            executors_problem=why,
        )
    finally:
        _remove(marks)


def host_facts(
    answer: Mapping[str, Any], marks: Mapping[str, tuple[str, str]] | None = None
) -> HostFacts:
    """Return a probe's answer as facts."""
    paths = answer.get("paths", {})
    driver = answer.get("driver") or {}
    peers = answer.get("peers")
    return HostFacts(
        host=answer["host"],
        python=answer["python"],
        executable=answer["executable"],
        packages=answer["packages"],
        shm=Room(**answer["shm"]),
        disks={folder: Room(**room) for folder, room in answer["disks"].items()},
        memory_bytes=answer["memory_bytes"],
        gpu_devices=answer["gpu_devices"],
        tensorflow_gpus=answer["tensorflow_gpus"],
        spark_gpus=answer.get("spark_gpus", 0),
        rank=answer.get("rank", 0),
        skew_s=driver.get("skew_s"),
        driver_problem=driver.get("problem"),
        free_ports=answer.get("ports"),
        peer_problems=None if peers is None else tuple(peers),
        paths={
            path: PathFacts(**paths[mark]) for path, (mark, _) in (marks or {}).items() if paths
        },
    )


def _java() -> str | None:
    home = java_home()
    command = join(home, "bin", "java") if home else shutil.which("java")
    if command is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the Java that Spark would start
            [command, "-version"], capture_output=True, text=True, timeout=_JAVA_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stderr + done.stdout).strip()


def _pyspark() -> str | None:
    for name in ("pyspark", "pyspark-client"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _look_here(wishes: Wishes, deadline_s: float) -> dict[str, Any]:
    here = look({"packages": PACKAGES, "timeout_s": deadline_s})
    return here | {"ports": free_ports(wishes.ports)}


def _spark_home_version() -> str | None:
    """Return the version of the Spark in SPARK_HOME, by the name of its jar."""
    home = spark_home()
    jars = glob.glob(join(home, "jars", "spark-core_*.jar")) if home else []
    found = re.search(r"spark-core_[\d.]+-(\d+\.\d+\.\d+)", jars[0]) if jars else None
    return found[1] if found else None


def _wishes(config: JobConfig | None, deadline_s: float) -> Wishes:
    if config is None:
        return Wishes()
    tables = (config.table, config.infer.table, config.output)
    parameters, problem = count_parameters(config, timeout_s=deadline_s)
    return Wishes(
        num_workers=config.cluster.num_workers,
        uses_delta=any(table is not None and table.format == "delta" for table in tables),
        trains=config.model is not None,
        parameters=parameters,
        parameters_problem=problem,
        ports=_port_range(config),
    )


def _port_range(config: JobConfig) -> tuple[int, int] | None:
    span = config.cluster.port_range
    return None if span is None else (span.low, span.high)


def _try_storage(
    config: JobConfig | None,
) -> tuple[dict[str, str | None], dict[str, tuple[str, str]]]:
    """Write a file beside each path that jobs write, and read it.

    Returns:
        Path → problem or `None`; and path → the file and what it holds, of those that work.
    """
    results: dict[str, str | None] = {}
    marks: dict[str, tuple[str, str]] = {}
    for path in _paths(config):
        text = f"spark-dl doctor {secrets.token_hex(8)}"
        try:
            storage = Storage(path)
            mark = join(_existing(storage, path), f".spark-dl-doctor-{secrets.token_hex(4)}")
            storage.write_atomic(mark, text)
            marks[path] = (mark, text)
            found = storage.read_text(mark)
            results[path] = None if found == text else f"it gave back {found!r}"
        except (SparkDLError, OSError, ImportError) as error:
            results[path] = str(error)
    if config is not None and config.table is not None and config.table.path is not None:
        table = normalise(config.table.path)
        try:
            there = Storage(table).exists(table)
            results.setdefault(table, None if there else "there is no such table")
        except (SparkDLError, OSError, ImportError) as error:
            results[table] = str(error)
    return results, marks


def _paths(config: JobConfig | None) -> list[str]:
    if config is None:
        return []
    named = (
        config.dataset.path if config.dataset else None,
        config.runs,
        config.output.path if config.output else None,
    )
    return list(dict.fromkeys(normalise(path) for path in named if path))


def _existing(storage: Storage, path: str) -> str:
    """Return the folder above a path that is there already: nothing is made for a check."""
    folder = path.rpartition("/")[0]
    while folder.rstrip("/:") and not storage.exists(folder):
        above = folder.rpartition("/")[0]
        if above.endswith(("/", ":")):
            break
        folder = above
    return folder or "/"


def _remove(marks: Mapping[str, tuple[str, str]]) -> None:
    for mark, _ in marks.values():
        folder, _, name = mark.rpartition("/")
        with contextlib.suppress(SparkDLError, OSError):
            storage = Storage(mark)
            for left in storage.list(folder or "/"):
                if left.startswith(name):
                    storage.remove(join(folder or "/", left))


def _session_facts(spark: SparkSession, wishes: Wishes, patience_s: float) -> SessionFacts:
    version = spark.version
    if _jvm.is_connect(spark):
        return SessionFacts(
            version=version,
            scala=None,
            master=spark.conf.get("spark.master", None) or "Spark Connect",
            conf={},
            is_connect=True,
            delta_problem=_delta_problem(spark),
        )
    conf = dict(spark.sparkContext.getConf().getAll())
    try:
        at_hand: str | None = _jvm.connector_jar(spark_line(version))
    except ConfigError:
        at_hand = None
    delta_problem = _delta_problem(spark)
    return SessionFacts(
        version=version,
        scala=_jvm.scala_version(spark),
        master=conf.get("spark.master", ""),
        conf=conf,
        slots=_slots(spark, conf, wishes.num_workers, patience_s),
        connector=_jvm.class_jar(spark, _jvm.CONNECTOR_CLASS),
        connector_at_hand=at_hand,
        delta_problem=delta_problem,
        delta_jar=None if delta_problem else _jvm.class_jar(spark, _jvm.DELTA_EXTENSION),
    )


def _delta_problem(spark: SparkSession) -> str | None:
    try:
        _jvm.require_delta(spark)
    except ConfigError as error:
        return str(error)
    return None


def _slots(spark: SparkSession, conf: dict[str, str], wanted: int | None, patience_s: float) -> int:
    """Return the task slots, once all that are to come have come or patience is over."""
    if conf.get("spark.dynamicAllocation.enabled", "false").lower() == "true":
        return _jvm.task_slots(spark)  # none may come before a job asks for them
    promised = expected_slots(conf)
    enough = promised if promised is not None else wanted or 1
    end = time.monotonic() + patience_s
    pause = threading.Event()
    while (slots := _jvm.task_slots(spark)) < enough and time.monotonic() < end:
        pause.wait(_POLL_S)
    return slots

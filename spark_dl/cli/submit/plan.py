"""The spark-submit line for a config and a kind of cluster: a pure function, flag by flag."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from spark_dl._jvm import DELTA_CATALOG, DELTA_EXTENSION
from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spark_dl.config import JobConfig, JobName
    from spark_dl.versions import SparkLine

__all__ = ["Flag", "Installed", "Kind", "Target", "plan", "render"]

Kind = Literal["local", "local-cluster", "standalone", "yarn"]
DeployMode = Literal["client", "cluster"]

_ENVIRONMENT: Final = "environment"
_EXECUTORS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Flag:
    """Some words of the line, and why they are there."""

    words: tuple[str, ...]
    why: str

    @property
    def shown(self) -> str:
        """The words as a shell reads them."""
        return shlex.join(self.words)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the job is to run.

    Attributes:
        kind: kind of cluster.
        master: its address; a standalone cluster needs one, the others have a default.
        deploy_mode: where the driver runs.
        executors: number of executors; `None` takes ``cluster.num_workers``, else two.
        executor_cores: cores of each.
        executor_memory: heap of each.
        memory_overhead: memory of each outside the heap: Python and TensorFlow.
        python: Python of the executors, as their hosts know it; `None` for this one on this
            machine, for ``python3`` elsewhere.
        archive: packed environment (venv-pack, conda-pack) to ship instead.
        py_files: modules to ship.
        conf: further settings ``key=value``; they win.
    """

    kind: Kind
    master: str | None = None
    deploy_mode: DeployMode = "client"
    executors: int | None = None
    executor_cores: int = 1
    executor_memory: str = "1g"
    memory_overhead: str = "2g"
    python: str | None = None
    archive: str | None = None
    py_files: tuple[str, ...] = ()
    conf: tuple[str, ...] = ()

    @property
    def is_this_machine(self) -> bool:
        """Whether executors are processes of this machine."""
        return self.kind in ("local", "local-cluster")

    @property
    def driver_is_elsewhere(self) -> bool:
        """Whether the cluster starts the driver, on a host that has none of this host's files."""
        return self.deploy_mode == "cluster"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What is on this machine.

    Attributes:
        spark_submit: the command to begin with.
        python: this interpreter.
        entry: the script that is submitted.
        spark: the line of Spark.
        connector: path of the connector's jar, `None` when this installation has none.
        delta: paths of Delta's jars, empty when they are not here.
        model_file: file of the module of ``model.fn``, `None` when it is no single file here.
    """

    spark_submit: tuple[str, ...]
    python: str
    entry: str
    spark: SparkLine
    connector: str | None = None
    delta: tuple[str, ...] = ()
    model_file: str | None = None


def plan(
    job: JobName, config: JobConfig, config_path: str, target: Target, installed: Installed
) -> list[Flag]:
    """Return the whole line.

    Args:
        job: which job.
        config: its config.
        config_path: where that lies on this machine.
        target: the cluster.
        installed: what is here.

    Raises:
        ConfigError: Spark has no such way to run, or an address is missing.
    """
    flags = [
        Flag(words=installed.spark_submit, why="the spark-submit of the Spark found here"),
        *_where(job, target),
        *_size(job, config, target),
        *_python(target, installed),
        *_files(config_path, target, installed),
        *_jars(config, installed),
    ]
    flags += [_conf(*_pair(text), why="asked for by --conf") for text in target.conf]
    read = os.path.basename(config_path) if target.driver_is_elsewhere else config_path
    return [
        *flags,
        Flag(
            words=(installed.entry,),
            why="spark-dl's entry: the same code as `spark-dl " + job + "`",
        ),
        Flag(words=(job, "--config", read), why="what the job is told; --set key=value may follow"),
    ]


def render(flags: Sequence[Flag]) -> str:
    """Return the line as a shell script: each flag explained in a comment, then the command."""
    width = max(len(flag.shown) for flag in flags if len(flag.shown) <= _WIDE)
    notes = [
        f"#   {flag.shown.ljust(width)}  {flag.why}"
        if len(flag.shown) <= width
        else f"#   {flag.shown}\n#   {' ' * width}  {flag.why}"
        for flag in flags
    ]
    return "\n".join(notes) + "\n" + " \\\n  ".join(flag.shown for flag in flags) + "\n"


_WIDE: Final = 60


def _conf(key: str, value: str, *, why: str) -> Flag:
    return Flag(words=("--conf", f"{key}={value}"), why=why)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        msg = f"--conf {text}: expected key=value, such as spark.executor.memory=4g"
        raise ConfigError(msg)
    return key, value


def _where(job: JobName, target: Target) -> Iterator[Flag]:
    if target.kind == "standalone" and target.driver_is_elsewhere:
        msg = (
            "a standalone cluster runs Python drivers in client mode only: leave --deploy-mode out"
        )
        raise ConfigError(msg)
    if target.is_this_machine and target.driver_is_elsewhere:
        msg = f"{target.kind} has no cluster mode: leave --deploy-mode out"
        raise ConfigError(msg)
    yield Flag(words=("--master", _master(target)), why="the cluster")
    where = "on a node of the cluster" if target.driver_is_elsewhere else "here"
    yield Flag(words=("--deploy-mode", target.deploy_mode), why=f"the driver runs {where}")
    yield Flag(words=("--name", f"spark-dl {job}"), why="what the cluster's pages call it")


def _master(target: Target) -> str:
    if target.master is not None:
        return target.master
    count = target.executors or _EXECUTORS
    if target.kind == "standalone":
        msg = "a standalone cluster has an address: give --master spark://HOST:7077"
        raise ConfigError(msg)
    return {
        "yarn": "yarn",
        "local": f"local[{count * target.executor_cores}]",
        "local-cluster": f"local-cluster[{count},{target.executor_cores},1024]",
    }[target.kind]


def _size(job: JobName, config: JobConfig, target: Target) -> Iterator[Flag]:
    count = target.executors or config.cluster.num_workers or _EXECUTORS
    cores = target.executor_cores
    if target.kind == "yarn":
        yield Flag(words=("--num-executors", str(count)), why="one executor for each worker")
    if target.kind == "standalone":
        yield Flag(
            words=("--total-executor-cores", str(count * cores)),
            why=f"{count} executors: a standalone cluster counts their cores",
        )
    if not target.is_this_machine:
        yield Flag(words=("--executor-cores", str(cores)), why="cores of each executor")
    yield Flag(
        words=("--executor-memory", target.executor_memory),
        why="heap of each executor; TensorFlow's memory is not in it",
    )
    yield _conf(
        "spark.executor.memoryOverhead",
        target.memory_overhead,
        why="memory beside the heap, where Python and TensorFlow live: YARN kills what takes more",
    )
    if job == "train":
        if cores > 1:
            yield _conf(
                "spark.task.cpus", str(cores), why="a worker takes a whole executor, with its cores"
            )
        yield _conf(
            "spark.dynamicAllocation.enabled",
            "false",
            why="all workers run at once or none: Spark refuses barrier stages otherwise",
        )
    if target.kind == "yarn":
        yield _conf(
            "spark.yarn.maxAppAttempts",
            "1",
            why="YARN starts no driver again: status.json says whether that may help",
        )


def _python(target: Target, installed: Installed) -> Iterator[Flag]:
    executors = target.python or (installed.python if target.is_this_machine else None)
    if target.archive is not None:
        executors = f"./{_ENVIRONMENT}/bin/python"
        yield Flag(
            words=("--archives", f"{target.archive}#{_ENVIRONMENT}"),
            why="the Python environment, unpacked in each container under that name",
        )
    if executors is None:
        return
    yield _conf("spark.pyspark.python", executors, why="Python of the executors")
    if target.driver_is_elsewhere:
        yield _conf("spark.yarn.appMasterEnv.PYSPARK_PYTHON", executors, why="Python of the driver")
    else:
        yield _conf("spark.pyspark.driver.python", installed.python, why="Python of the driver")


def _files(config_path: str, target: Target, installed: Installed) -> Iterator[Flag]:
    if target.driver_is_elsewhere:
        yield Flag(
            words=("--files", config_path),
            why="the config, into the folder that the driver runs in",
        )
    shipped = [*target.py_files]
    if installed.model_file is not None and installed.model_file not in shipped:
        shipped.append(installed.model_file)
    if shipped:
        yield Flag(
            words=("--py-files", ",".join(shipped)),
            why="modules for driver and executors, with that of model.fn",
        )


def _jars(config: JobConfig, installed: Installed) -> Iterator[Flag]:
    jars = [installed.connector] if installed.connector else []
    if _uses_delta(config):
        jars += installed.delta
        if not installed.delta:
            yield Flag(
                words=("--packages", ",".join(installed.spark.delta_coordinates)),
                why="Delta, from the Maven repository that the cluster reaches",
            )
        yield _conf("spark.sql.extensions", DELTA_EXTENSION, why="Delta: cannot be added later")
        yield _conf("spark.sql.catalog.spark_catalog", DELTA_CATALOG, why="Delta: its catalog")
    if jars:
        yield Flag(
            words=("--jars", ",".join(jars)), why="the TFRecord connector, and Delta if here"
        )


def _uses_delta(config: JobConfig) -> bool:
    tables = (config.table, config.infer.table, config.output)
    return any(table is not None and table.format == "delta" for table in tables)

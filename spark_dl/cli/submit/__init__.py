"""``spark-dl submit``: a job on a cluster, through spark-submit.

With --print nothing runs: the exact line is printed, each flag explained, as a script for a shell.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, NoReturn, get_args

from spark_dl._jvm import connector_jar, delta_jars
from spark_dl.cli.submit.entry import job as entry
from spark_dl.cli.submit.plan import Installed, Kind, Target, plan, render
from spark_dl.config import JobName, load_config
from spark_dl.config.environment import installed_pyspark, spark_home
from spark_dl.errors import ConfigError
from spark_dl.versions import SPARK_LINES, SparkLine, installed_spark_line, spark_line

if TYPE_CHECKING:
    import argparse

    from spark_dl.config import JobConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("job", choices=get_args(JobName), help="which job")
    add("--config", metavar="FILE", required=True, help="YAML that describes the flow")
    add("--print", action="store_true", help="print the line and run nothing")
    add("--cluster", choices=get_args(Kind), help="kind of cluster; default: what --master says")
    add("--master", metavar="URL", help="its address, such as spark://host:7077")
    add(
        "--deploy-mode", choices=["client", "cluster"], default="client", help="place of the driver"
    )
    add("--executors", type=int, metavar="N", help="default: cluster.num_workers, else 2")
    add("--executor-cores", type=int, default=1, metavar="N", help="cores of each (default 1)")
    add("--executor-memory", default="1g", metavar="SIZE", help="heap of each (default 1g)")
    add("--memory-overhead", default="2g", metavar="SIZE", help="beside the heap (default 2g)")
    add("--archive", metavar="FILE", help="packed Python environment to ship (venv-pack)")
    add("--python", metavar="PATH", help="Python that the executors' hosts have already")
    add("--py-files", metavar="FILES", help="modules to ship, separated by commas")
    add("--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting of Spark")
    add("--spark", metavar="LINE", help=f"Spark of the cluster ({', '.join(SPARK_LINES)})")


def run(options: argparse.Namespace) -> int:
    """Print the line, or become it."""
    config = load_config(options.config)
    config.check_for(options.job)
    target = Target(
        kind=options.cluster or _kind(options.master),
        master=options.master,
        deploy_mode=options.deploy_mode,
        executors=options.executors,
        executor_cores=options.executor_cores,
        executor_memory=options.executor_memory,
        memory_overhead=options.memory_overhead,
        python=options.python,
        archive=options.archive,
        py_files=tuple(filter(None, (options.py_files or "").split(","))),
        conf=tuple(options.conf),
    )
    line = spark_line(options.spark) if options.spark else installed_spark_line()
    installed = _look_around(config, os.path.abspath(options.config), line)
    flags = plan(options.job, config, os.path.abspath(options.config), target, installed)
    if options.print:
        sys.stdout.write(render(flags))
        return 0
    words = [word for flag in flags for word in flag.words]
    sys.stderr.write(f"spark-dl submit: {' '.join(words)}\n")
    sys.stderr.flush()
    return _become(words)


def _become(words: list[str]) -> NoReturn:
    """Go on as another program: exit code and signals are its own."""
    os.execvp(words[0], words)  # noqa: S606 - no shell, which is the point


def _kind(master: str | None) -> Kind:
    """Return the kind of cluster that an address stands for."""
    if master is None:
        return "local-cluster"
    for prefix, kind in _KINDS.items():
        if master.startswith(prefix):
            return kind
    msg = f"--master {master}: expected {', '.join(_KINDS)}…, or say --cluster"
    raise ConfigError(msg)


_KINDS: dict[str, Kind] = {
    "local-cluster": "local-cluster",
    "local": "local",
    "spark://": "standalone",
    "yarn": "yarn",
}


def _look_around(config: JobConfig, config_path: str, line: SparkLine) -> Installed:
    try:
        connector = connector_jar(line)
    except ConfigError as error:
        sys.stderr.write(f"spark-dl submit: no connector in the line: {error}\n")
        connector = None
    return Installed(
        spark_submit=_spark_submit(),
        python=sys.executable,
        entry=entry.__file__,
        spark=line,
        connector=connector,
        delta=delta_jars(line),
        model_file=_model_file(config, os.path.dirname(config_path)),
    )


def _spark_submit() -> tuple[str, ...]:
    """Return the command, of the Spark of SPARK_HOME, else this Python's, else PATH's."""
    home, package = spark_home(), installed_pyspark()
    if home is not None:
        return (os.path.join(home, "bin", "spark-submit"),)
    if package is not None:
        # without SPARK_HOME its script takes the first Spark on PATH, which may be another
        return "env", f"SPARK_HOME={package}", os.path.join(package, "bin", "spark-submit")
    found = shutil.which("spark-submit")
    if found is None:
        msg = "there is no spark-submit here: set SPARK_HOME, or pip install 'spark-dl[spark]'"
        raise ConfigError(msg)
    return (found,)


def _model_file(config: JobConfig, beside: str) -> str | None:
    """Return the file of the model's module where it lies beside the config or in this folder."""
    if config.model is None:
        return None
    name = (config.model.fn or config.model.train_fn or "").partition(":")[0]
    for folder in (beside, os.getcwd()):
        path = os.path.join(folder, f"{name}.py")
        if os.path.isfile(path):
            return path
    return None

"""Which backend to use: asked of the executors, by a tiny job."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spark_dl._jvm import is_connect, spark_errors
from spark_dl.cluster.barrier import BarrierBackend
from spark_dl.cluster.tfos import TensorFlowOnSparkBackend
from spark_dl.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa
    from pyspark.sql import SparkSession

    from spark_dl.cluster.backend import Backend

__all__ = ["ExecutorFacts", "choose_backend", "probe_executors", "select_backend"]

logger = logging.getLogger(__name__)

_LACKING: Final = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_SETUPTOOLS_LIMIT: Final = 82
_ON_CONNECT: Final = (
    "its nodes register with a server in the driver, which a Spark Connect client is not"
)
_PACKAGES: Final = (
    "spark-dl",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "tensorflowonspark",
    "setuptools",
)


@dataclass(frozen=True, kw_only=True)
class ExecutorFacts:
    """What an executor's Python has.

    Attributes:
        python: its version.
        versions: installed packages that matter here, by distribution name.
    """

    python: str
    versions: dict[str, str]

    def why_not_tensorflowonspark(self) -> str | None:
        """Return what keeps TensorFlowOnSpark from running there, `None` if nothing does."""
        if "tensorflowonspark" not in self.versions:
            return "tensorflowonspark is not installed on the executors"
        setuptools = self.versions.get("setuptools", "none")
        if setuptools == "none" or int(setuptools.partition(".")[0]) >= _SETUPTOOLS_LIMIT:
            return (
                f"tensorflowonspark needs setuptools < {_SETUPTOOLS_LIMIT} on the executors, found "
                f"{setuptools}"
            )
        return None


def _probe(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for _ in batches:
        pass
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    facts = {"python": sys.version.split()[0], "versions": versions}
    yield pa.RecordBatch.from_pydict({"facts": [json.dumps(facts)]})


def probe_executors(spark: SparkSession, num_workers: int) -> list[ExecutorFacts]:
    """Ask the executors what their Python has, each different answer once.

    As many tasks as workers: a cold executor starts its Python while the others start theirs, not
    when the first one's answer is there.

    Raises:
        ResourceError: their Python has not even what a task needs.
    """
    tasks = spark.range(0, num_workers, 1, num_workers)
    try:
        rows = tasks.mapInArrow(_probe, "facts string").collect()
    except spark_errors() as error:
        lacking = _LACKING.search(str(error))
        if lacking is None:
            raise
        msg = (
            f"the executors' Python has no {lacking[1]}: let spark.pyspark.python (PYSPARK_PYTHON) "
            "name one that has spark-dl[tensorflow], on every host; `spark-dl doctor` looks closer"
        )
        raise ResourceError(msg) from error
    return [ExecutorFacts(**json.loads(facts)) for facts in {row.facts for row in rows}]


def choose_backend(name: str, facts: ExecutorFacts, *, on_connect: bool = False) -> tuple[str, str]:
    """Return the backend's name and the reason for it; pure.

    Args:
        name: ``auto``, ``tensorflowonspark`` or ``barrier``.
        facts: what the executors have.
        on_connect: whether the session is a client of Spark Connect.

    Raises:
        ResourceError: TensorFlow is missing there, or what the forced backend needs.
    """
    if not {"tensorflow", "tensorflow-cpu"} & facts.versions.keys():
        msg = (
            f"the executors' Python {facts.python} has no tensorflow: install spark-dl[tensorflow] "
            "there, "
            "or ship an environment that has it (spark.pyspark.python)"
        )
        raise ResourceError(msg)
    if on_connect:
        if name == "tensorflowonspark":
            msg = f"backend tensorflowonspark cannot be used: {_ON_CONNECT}; use barrier or auto"
            raise ConfigError(msg)
        obstacle: str | None = _ON_CONNECT
    else:
        obstacle = facts.why_not_tensorflowonspark()
    match name:
        case "barrier":
            return name, "asked for"
        case "tensorflowonspark":
            if obstacle:
                msg = (
                    f"backend tensorflowonspark cannot be used: {obstacle}; install spark-dl[tfos] "
                    "there"
                )
                raise ResourceError(msg)
            return name, "asked for"
        case "auto":
            if obstacle:
                return BarrierBackend.name, obstacle
            return TensorFlowOnSparkBackend.name, "its conditions hold"
        case _:
            msg = f"cluster.backend {name!r}: expected auto, tensorflowonspark or barrier"
            raise ConfigError(msg)


def select_backend(spark: SparkSession, name: str | None, *, num_workers: int) -> Backend:
    """Return the backend to use, and log which and why.

    Args:
        spark: the session, classic or Connect.
        name: ``auto`` (also `None`), ``tensorflowonspark`` or ``barrier``.
        num_workers: workers that there is room for.
    """
    answers = [
        choose_backend(name or "auto", facts, on_connect=is_connect(spark))
        for facts in probe_executors(spark, num_workers)
    ]
    # one executor without the package decides for all
    chosen, reason = min(answers, key=lambda answer: answer[0] != BarrierBackend.name)
    logger.info("backend %s: %s", chosen, reason)
    if chosen == TensorFlowOnSparkBackend.name:
        return TensorFlowOnSparkBackend(spark)
    return BarrierBackend(spark)

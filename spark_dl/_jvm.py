"""The only place that touches py4j, Spark's JVM and pyspark's private attributes."""

from __future__ import annotations

import glob
import inspect
import logging
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from spark_dl import __version__
from spark_dl.config.environment import extra_jars_folder
from spark_dl.errors import ConfigError
from spark_dl.versions import connector_jar_name, installed_spark_line, spark_line

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.resource import ResourceProfile
    from pyspark.sql import SparkSession

    from spark_dl.versions import SparkLine

__all__ = [
    "CONNECTOR_CLASS",
    "DELTA_CATALOG",
    "DELTA_EXTENSION",
    "RunningJob",
    "active_session",
    "brief_cause",
    "class_jar",
    "connector_jar",
    "connector_version",
    "container_ends",
    "default_filesystem",
    "delegation_tokens",
    "delta_jars",
    "ensure_connector",
    "has_class",
    "is_connect",
    "register_packing",
    "register_profile",
    "require_delta",
    "running_jobs",
    "running_tasks",
    "scala_version",
    "seconds_until_missed",
    "spark_errors",
    "takes_profiles",
    "task_slots",
    "tokens_of_this_driver",
]

logger = logging.getLogger(__name__)

CONNECTOR_CLASS: Final = "io.sparkdl.tfrecord.TFRecordSource"
#: Makes the connector's functions of arrays as binaries known to a session.
_PACKING_CLASS: Final = "io.sparkdl.columns.PackedArrays"
DELTA_CATALOG: Final = "org.apache.spark.sql.delta.catalog.DeltaCatalog"
DELTA_EXTENSION: Final = "io.delta.sql.DeltaSparkSessionExtension"
#: YARN gives it to a driver in cluster mode; it is good for nothing on an executor.
_OF_THE_APPLICATION_MASTER: Final = "YARN_AM_RM_TOKEN"

_PACKAGE: Final = os.path.dirname(os.path.abspath(__file__))


def _jar_folders() -> list[str]:
    """Folders that may hold jars: the user's, the wheel's, and the build folder of a checkout."""
    own = extra_jars_folder()
    return [
        *([own] if own else []),
        os.path.join(_PACKAGE, "_jars"),
        os.path.join(os.path.dirname(_PACKAGE), "build", "jars"),
    ]


def connector_jar(line: SparkLine | None = None) -> str:
    """Return the path of the TFRecord connector's jar.

    Args:
        line: the Spark that it is for; by default the pyspark that is installed here.

    Raises:
        ConfigError: this installation has none; the message says how to get it.
    """
    name = connector_jar_name((line or installed_spark_line()).scala)
    for folder in _jar_folders():
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    msg = (
        f"{name} was not found in {', '.join(_jar_folders())}: the wheel of spark-dl carries it, "
        "in a checkout run `make jars`; or put it into a folder and set SPARK_DL_JARS_DIR"
    )
    raise ConfigError(msg)


def delta_jars(line: SparkLine | None = None) -> tuple[str, ...]:
    """Return the paths of Delta's jars that the set-up laid out; empty when they are not all there.

    Args:
        line: the Spark that they are for; by default the pyspark that is installed here.
    """
    line = line or installed_spark_line()
    for folder in _jar_folders():
        found = [
            glob.glob(os.path.join(glob.escape(folder), f"{artifact}-{line.delta_version}.jar"))
            for artifact in (line.delta_artifact, "delta-storage")
        ]
        if all(found):
            return tuple(path for paths in found for path in paths)
    return ()


def active_session() -> SparkSession:
    """Return the session that is active in this thread, else this process's own.

    Raises:
        ConfigError: there is none.
    """
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    try:
        return SparkSession.active()
    except PySparkRuntimeError as error:
        msg = "no Spark session is active: start one, or pass it as spark=…"
        raise ConfigError(msg) from error


def is_connect(spark: SparkSession) -> bool:
    """Whether a session is a client of Spark Connect, which has no JVM of its own."""
    return type(spark).__module__.startswith("pyspark.sql.connect.")


def has_class(spark: SparkSession, name: str) -> bool:
    """Whether this thread of a classic session can load a JVM class."""
    from py4j.protocol import Py4JJavaError

    jvm: Any = spark._jvm  # noqa: SLF001 (this module's job)
    try:
        # the thread's own loader: ADD JAR changes that one, which is why each thread needs its own
        jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(name)
    except Py4JJavaError:
        return False
    return True


def class_jar(spark: SparkSession, name: str) -> str | None:
    """Return the jar that a classic session loads a class from, `None` when it has none."""
    if not has_class(spark, name):
        return None
    jvm: Any = spark._jvm  # noqa: SLF001 (this module's job)
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    source = loader.loadClass(name).getProtectionDomain().getCodeSource()
    return str(source.getLocation().getPath()) if source is not None else None


def scala_version(spark: SparkSession) -> str:
    """Return the version of Scala that a classic session's Spark was built with."""
    jvm: Any = spark._jvm  # noqa: SLF001 (this module's job)
    return str(jvm.scala.util.Properties.versionNumberString())


def ensure_connector(spark: SparkSession) -> None:
    """Make ``format("tfrecord")`` usable in this thread; nothing happens where it is already.

    Raises:
        ConfigError: the session lacks the connector and cannot be given it, or has that of another
            version of this package.
    """
    if is_connect(spark):
        # A Connect server loads data sources from its own classpath; whether it has ours shows at
        # first use.
        logger.debug("Spark Connect: the server must have been started with the connector's jar")
        return
    if has_class(spark, CONNECTOR_CLASS):
        _refuse_other_version(spark)
        return
    jar = connector_jar(spark_line(spark.version))
    logger.info("the session lacks the TFRecord connector: ADD JAR %s", jar)
    spark.sql(f"ADD JAR '{jar}'")
    if not has_class(spark, CONNECTOR_CLASS):
        msg = (
            f"ADD JAR {jar} did not make the TFRecord connector visible to this session: "
            f"start the session with spark.jars={jar}"
        )
        raise ConfigError(msg)


def register_packing(spark: SparkSession) -> bool:
    """Make `spark_dl_pack` and `spark_dl_unpack` usable in a session.

    Returns:
        Whether they are: not on Spark Connect, nor without this package's own connector.
    """
    if is_connect(spark) or not has_class(spark, _PACKING_CLASS) or _other_version(spark):
        return False
    jvm: Any = spark._jvm  # noqa: SLF001 (this module's job)
    state: Any = spark._jsparkSession.sessionState()  # noqa: SLF001 (this module's job)
    jvm.io.sparkdl.columns.PackedArrays.register(state.functionRegistry())
    return True


def connector_version(spark: SparkSession) -> str | None:
    """Return the version of the connector's jar in a classic session; `None` if it does not say."""
    jvm: Any = spark._jvm  # noqa: SLF001 (this module's job)
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    found = loader.loadClass(CONNECTOR_CLASS).getPackage().getImplementationVersion()
    return str(found) if found is not None else None


def _other_version(spark: SparkSession) -> str | None:
    """Return the version of a connector that is another package's; `None` if it does not say."""
    found = connector_version(spark)
    return None if found == __version__ else found


def _refuse_other_version(spark: SparkSession) -> None:
    """Jar and package are released together: another one may write what this one cannot read."""
    found = _other_version(spark)
    if found is None:
        return
    msg = (
        f"this session's TFRecord connector is of version {found} "
        f"({class_jar(spark, CONNECTOR_CLASS)}), but spark_dl here is {__version__}: start the "
        "session with this package's own jar (`spark-dl jar` prints its path) in spark.jars, and "
        "remove the other one from the cluster"
    )
    raise ConfigError(msg)


def require_delta(spark: SparkSession) -> None:
    """Check that a session has Delta, which cannot be added to a running one.

    Raises:
        ConfigError: it cannot; the message holds the settings to start it with.
    """
    if _conf(spark, "spark.databricks.clusterUsageTags.clusterId") is not None:
        return  # Databricks builds Delta in, without these settings
    lacking = []
    if DELTA_EXTENSION not in (_conf(spark, "spark.sql.extensions") or ""):
        lacking.append(f"spark.sql.extensions={DELTA_EXTENSION}")
    if _conf(spark, "spark.sql.catalog.spark_catalog") != DELTA_CATALOG:
        lacking.append(f"spark.sql.catalog.spark_catalog={DELTA_CATALOG}")
    if not is_connect(spark) and not has_class(spark, DELTA_EXTENSION):
        coordinates = ",".join(spark_line(spark.version).delta_coordinates)
        lacking.append(f"spark.jars.packages={coordinates}")
    if lacking:
        msg = (
            "this Spark session has no Delta, which cannot be added while it runs: start it with "
            + " and ".join(lacking)
        )
        raise ConfigError(msg)


def spark_errors() -> tuple[type[Exception], ...]:
    """Return what to catch for "Spark refused or failed", on classic Spark and on Connect."""
    from pyspark.errors import PySparkException

    try:
        from py4j.protocol import Py4JJavaError
    except ImportError:  # a Connect-only client comes without py4j
        return (PySparkException,)
    return (PySparkException, Py4JJavaError)


def brief_cause(error: BaseException) -> str:
    """Return the innermost message of a Spark error, without plans and stack traces.

    Args:
        error: one of `spark_errors`.
    """
    java: Any = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    if java is None:
        return _first_lines(str(error))
    # 20: a chain of causes that is longer, or circular, has told enough
    for _ in range(20):
        cause = java.getCause()
        if cause is None:
            break
        java = cause
    # an AnalysisException's full message ends with the query's plan
    analysis = java.getClass().getSimpleName().endswith("AnalysisException")
    message = java.getSimpleMessage() if analysis else java.getMessage()
    return _first_lines(str(message)) if message else str(java.toString())


def _first_lines(message: str) -> str:
    """Return a message up to its first blank line, stack frame or query plan."""
    kept: list[str] = []
    for line in message.strip().splitlines():
        if not line.strip() or line.startswith(("\tat ", "'", "+-", "==")):
            break
        kept.append(line.strip())
    return " ".join(kept) or message.strip()


def _conf(spark: SparkSession, key: str) -> str | None:
    value: str | None = spark.conf.get(key, None)
    return value


def takes_profiles() -> bool:
    """Whether the installed pyspark runs DataFrame functions under a resource profile (4.0)."""
    from pyspark.sql import DataFrame

    return "profile" in inspect.signature(DataFrame.mapInArrow).parameters


def register_profile(spark: SparkSession, profile: ResourceProfile) -> None:
    """Make a profile known to a classic session's Spark, which refuses it where it cannot serve."""
    context: Any = spark.sparkContext._jsc.sc()  # noqa: SLF001 (this module's job)
    java = profile._java_resource_profile  # noqa: SLF001 (this module's job)
    context.resourceProfileManager().addResourceProfile(java)


def is_stopped(spark: SparkSession) -> bool:
    """Whether a classic session's application is over: stopped, or ended by its cluster manager."""
    context: Any = spark.sparkContext._jsc  # noqa: SLF001 (this module's job)
    return context is None or bool(context.sc().isStopped())


def task_slots(spark: SparkSession, profile: ResourceProfile | None = None) -> int:
    """Return how many tasks the executors that are there can run at once.

    It is the figure that Spark itself holds a barrier stage against.

    Args:
        spark: a classic session.
        profile: what the tasks ask for, registered; by default what the application's settings say.
    """
    context: Any = spark.sparkContext._jsc.sc()  # noqa: SLF001 (this module's job)
    java = (
        context.resourceProfileManager().defaultResourceProfile()
        if profile is None
        else profile._java_resource_profile  # noqa: SLF001 (this module's job)
    )
    return int(context.maxNumConcurrentTasks(java))


def running_tasks(spark: SparkSession) -> int:
    """Return how many tasks are running now, of all jobs of the session's SparkContext."""
    context: Any = spark.sparkContext._jsc.sc()  # noqa: SLF001 (this module's job)
    return sum(int(info.numRunningTasks()) for info in context.statusTracker().getExecutorInfos())


class RunningJob(NamedTuple):
    """A Spark job that holds task slots."""

    id: int
    tasks: int
    description: str


def running_jobs(spark: SparkSession) -> tuple[RunningJob, ...]:
    """Return the jobs of the session's SparkContext that have tasks running now, oldest first."""
    from py4j.protocol import Py4JJavaError

    context: Any = spark.sparkContext._jsc.sc()  # noqa: SLF001 (this module's job)
    jobs = []
    for number in sorted(context.statusTracker().getActiveJobIds()):
        try:
            job = context.statusStore().job(number)
        except Py4JJavaError:
            continue  # so new that it is not kept yet
        description = job.description()
        told = str(description.get()) if description.isDefined() else str(job.name())
        if tasks := int(job.numActiveTasks()):
            jobs.append(RunningJob(id=int(number), tasks=tasks, description=told))
    return tuple(jobs)


def seconds_until_missed(spark: SparkSession) -> float:
    """Return after how long at most Spark counts an executor as lost that has fallen silent."""
    conf: Any = spark.sparkContext._jsc.sc().conf()  # noqa: SLF001 (this module's job)
    looks = {"spark.network.timeout": "120s", "spark.network.timeoutInterval": "60s"}
    return float(sum(conf.getTimeAsSeconds(name, default) for name, default in looks.items()))


def container_ends(spark: SparkSession) -> dict[str, str]:
    """Return why executors have ended, by the id of YARN's container that each ran in."""
    context: Any = spark.sparkContext._jsc.sc()  # noqa: SLF001 (this module's job)
    executors = context.statusStore().executorList(False)  # noqa: FBT003 (Scala takes it by place)
    ends = {}
    for index in range(executors.size()):
        executor = executors.apply(index)
        container = executor.attributes().get("CONTAINER_ID")
        reason = executor.removeReason()
        if container.isDefined() and reason.isDefined():
            ends[str(container.get())] = str(reason.get())
    return ends


def delegation_tokens(spark: SparkSession) -> bytes | None:
    """Return the delegation tokens that Spark's driver holds now, as Hadoop writes them to a file.

    Spark renews them where it was given a keytab, or ``spark.kerberos.renewal.credentials``.

    Returns:
        `None` where it has none: without Kerberos, and on Spark Connect.
    """
    if is_connect(spark):
        return None
    return _held_tokens(spark.sparkContext)


def tokens_of_this_driver() -> bytes | None:
    """Return the delegation tokens of the Spark that this process drives, if it drives one."""
    from pyspark import SparkContext

    context = SparkContext._active_spark_context  # noqa: SLF001 (this module's job)
    return _held_tokens(context) if context is not None else None


def _held_tokens(context: SparkContext) -> bytes | None:
    jvm: Any = context._jvm  # noqa: SLF001 (this module's job)
    security = jvm.org.apache.hadoop.security
    kept = security.Credentials()
    held = security.UserGroupInformation.getCurrentUser().getCredentials().getAllTokens()
    for token in jvm.java.util.ArrayList(held):
        if token.getKind().toString() != _OF_THE_APPLICATION_MASTER:
            kept.addToken(token.getService(), token)
    if not kept.numberOfTokens():
        return None
    written = jvm.java.io.ByteArrayOutputStream()
    kept.writeTokenStorageToStream(jvm.java.io.DataOutputStream(written))
    return bytes(written.toByteArray())


def default_filesystem(spark: SparkSession) -> str:
    """Return the file system that Spark means by a path without a scheme, such as ``hdfs://nn``.

    Returns:
        Empty for the local one, and on Spark Connect, where the client cannot know it.
    """
    if is_connect(spark):
        return ""
    conf: Any = spark.sparkContext._jsc.hadoopConfiguration()  # noqa: SLF001 (this module's job)
    name = str(conf.get("fs.defaultFS") or "")
    return "" if name.startswith("file:") else name

"""The Spark session of a job: the user's where there is one, else an embedded cluster.

An embedded cluster is Spark's ``local-cluster``: two executors of one core each, real processes of
their own, so that a job does on one machine what it does on many.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spark_dl._jvm import (
    DELTA_CATALOG,
    DELTA_EXTENSION,
    active_session,
    connector_jar,
    delta_jars,
    is_connect,
    tokens_of_this_driver,
)
from spark_dl.config.environment import (
    configured_master,
    point_executors_at_this_python,
    spark_home,
    under_spark_submit,
)
from spark_dl.errors import ConfigError
from spark_dl.storage.tokens import follow_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

__all__ = ["EMBEDDED_MASTER", "active_session", "embedded_session", "job_session", "ship_code"]

logger = logging.getLogger(__name__)

EMBEDDED_MASTER: Final = "local-cluster[2,1,1024]"
#: A short session spends two thirds of its JVMs' processor time in the optimising compiler; what it
#: saves pays that back after some hundreds of megabytes. An option of the user's wins.
_COMPILE_LITTLE: Final = "-XX:TieredStopAtLevel=1"


@contextlib.contextmanager
def job_session(app_name: str = "spark-dl") -> Iterator[SparkSession]:
    """Give a job its session.

    A session that is active already is used and stays; a master that the user set (by
    `spark-submit` or ``spark-defaults.conf``) is respected; otherwise an embedded cluster is
    started. What was started here is stopped.

    Args:
        app_name: name of the application in Spark's own pages.

    Yields:
        The session.
    """
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    if not under_spark_submit() and configured_master() is None:
        with embedded_session(app_name=app_name) as embedded:
            yield embedded
        return
    session = SparkSession.builder.appName(app_name).getOrCreate()
    try:
        yield session
    finally:
        session.stop()


@contextlib.contextmanager
def embedded_session(
    master: str = EMBEDDED_MASTER,
    *,
    app_name: str = "spark-dl",
    conf: dict[str, str] | None = None,
) -> Iterator[SparkSession]:
    """Start Spark on this machine, with the connector and Delta where the set-up laid their jars.

    Its JVMs start quickly and compile little. For gigabytes give them their optimising compiler
    back: set ``spark.driver.defaultJavaOptions`` and ``spark.executor.defaultJavaOptions`` to "".

    Args:
        master: ``local[…]`` or ``local-cluster[workers,cores,memory_mb]``.
        app_name: name of the application.
        conf: further settings; they win over the defaults.

    Yields:
        The session; it is stopped at the end and what it wrote into Spark's own folder is removed.

    Raises:
        ConfigError: SPARK_HOME names another Spark than the pyspark that is installed here.
    """
    import pyspark
    from pyspark.sql import SparkSession

    point_executors_at_this_python(os.path.dirname(pyspark.__file__))
    builder = SparkSession.builder.master(master).appName(app_name)
    for key, value in {**_embedded_conf(), **(conf or {})}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    application = session.sparkContext.applicationId
    try:
        if session.version != pyspark.__version__:
            msg = (
                f"SPARK_HOME={spark_home()} holds Spark {session.version}, but pyspark here is "
                f"{pyspark.__version__}: unset SPARK_HOME or install the same version"
            )
            raise ConfigError(msg)
        yield session
    finally:
        session.stop()
        _remove_work_folder(application)


def ship_code(spark: SparkSession, *modules: str | os.PathLike[str]) -> None:
    """Send this package, and modules of yours, to the executors of a Spark Connect session.

    It serves a server whose executors have TensorFlow but not this package. The artifacts belong to
    this session; other users of the server do not see them. Executors start to see them with the
    next query.

    Args:
        spark: a session of Spark Connect.
        modules: Python files, or folders of packages, that your `model_fn` imports.

    Raises:
        ConfigError: the session is a classic one, or a path is neither file nor folder.

    Example:
        >>> ship_code(spark, "models.py")  # doctest: +SKIP
    """
    if not is_connect(spark):
        msg = "a classic session ships code by spark-submit --py-files or SparkContext.addPyFile"
        raise ConfigError(msg)
    own = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        for path in (own, *(os.path.abspath(module) for module in modules)):
            name = os.path.basename(path)
            if os.path.isfile(path):
                spark.addArtifacts(path, pyfile=True)
            elif os.path.isdir(path):
                # a wheel would be refused by Connect, its content in a .zip is not
                archive = os.path.join(folder, f"{name}-{_zip_package(path, folder)}.zip")
                spark.addArtifacts(archive, pyfile=True)
            else:
                msg = f"ship_code: {path} is neither a Python file nor a folder"
                raise ConfigError(msg)


def _zip_package(package: str, folder: str) -> str:
    """Zip a package's Python files into `folder` and return the digest in the archive's name.

    The server keeps artifacts by name and refuses another content under a name it has.
    """
    name = os.path.basename(package)
    files = sorted(str(path) for path in Path(package).rglob("*.py"))
    files += [path for path in (os.path.join(package, "py.typed"),) if os.path.exists(path)]
    digest = hashlib.sha256()
    for path in files:
        digest.update(os.path.relpath(path, package).encode() + Path(path).read_bytes())
    short = digest.hexdigest()[:12]
    with zipfile.ZipFile(os.path.join(folder, f"{name}-{short}.zip"), "w") as archive:
        for path in files:
            archive.write(path, os.path.join(name, os.path.relpath(path, package)))
    return short


def _embedded_conf() -> dict[str, str]:
    conf = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.defaultJavaOptions": _COMPILE_LITTLE,
        "spark.executor.defaultJavaOptions": _COMPILE_LITTLE,
        # a second and a number: two processes that start in one second would share a work folder,
        # and the first to end would take it from the other (Spark >= 4.0)
        "spark.deploy.appIdPattern": f"app-%s-{os.getpid()}-%04d",
        "spark.executor.memory": "1g",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
        # Delta replays a table's log in 50 tasks by default: on two cores that is most of the time
        "spark.databricks.delta.snapshotPartitions": "2",
    }
    jars = list(delta_jars())
    if jars:
        conf["spark.sql.extensions"] = DELTA_EXTENSION
        conf["spark.sql.catalog.spark_catalog"] = DELTA_CATALOG
    else:
        logger.warning("Delta's jars were not found: this session reads and writes no Delta tables")
    try:
        jars.append(connector_jar())
    except ConfigError as error:
        # reading Parquet and scoring work without it; what needs it asks again and raises
        logger.warning("%s", error)
    if jars:
        conf["spark.jars"] = ",".join(jars)
    return conf


def _remove_work_folder(application: str) -> None:
    """Remove what ``local-cluster`` wrote into Spark's own folder and leaves there."""
    work = os.path.join(spark_home() or "", "work")
    folder = os.path.join(work, application)
    if os.path.isdir(folder):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(work)  # only when no other application uses it


# what a driver reads and writes by itself is opened by what opens it for Spark: a keytab's tokens
# are Spark's alone
follow_tokens(tokens_of_this_driver)

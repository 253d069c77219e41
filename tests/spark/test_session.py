"""The session that jobs and tests get."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import spark_dl
from spark_dl._jvm import (
    CONNECTOR_CLASS,
    connector_jar,
    ensure_connector,
    has_class,
    is_connect,
    require_delta,
)
from spark_dl.cluster.profile import WorkerResources, worker_profile
from spark_dl.errors import ConfigError
from spark_dl.session import active_session, job_session

pytestmark = pytest.mark.spark


def test_a_jobs_session_is_the_one_that_is_active_and_stays(spark):
    with job_session() as session:
        assert session is spark
    assert active_session() is spark
    assert spark.range(3).count() == 3


def test_the_session_is_local_and_in_utc(spark):
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.sparkContext.uiWebUrl is None
    assert not is_connect(spark)


def test_its_jvms_compile_little(spark):
    conf = spark.sparkContext.getConf()
    little = "-XX:TieredStopAtLevel=1"
    assert conf.get("spark.driver.defaultJavaOptions") == little
    assert conf.get("spark.executor.defaultJavaOptions") == little


def test_another_thread_finds_the_session_too(spark):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(active_session()))
    thread.start()
    thread.join()
    assert [session.sparkContext for session in seen] == [spark.sparkContext]


def test_without_a_session_the_error_says_what_to_do():
    script = "from spark_dl.session import active_session; active_session()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "ConfigError: no Spark session is active: start one, or pass it as spark=" in done.stderr


def test_the_connector_is_there_and_asking_again_changes_nothing(spark):
    ensure_connector(spark)
    ensure_connector(spark)
    assert has_class(spark, CONNECTOR_CLASS)


def test_prepare_refuses_a_connector_of_another_version(spark, tmp_path, monkeypatch):
    monkeypatch.setattr("spark_dl._jvm.__version__", "9.9.9")
    told = (
        r"connector is of version 0\.1\.0 \(.*\.jar\), but spark_dl here is 9\.9\.9: .*spark\.jars"
    )
    with pytest.raises(ConfigError, match=told):
        spark_dl.prepare(spark.range(50), features=["id"], path=str(tmp_path / "dataset"))
    assert not (tmp_path / "dataset").exists()


def test_a_class_that_is_not_there_is_not_found(spark):
    assert not has_class(spark, "io.sparkdl.NoSuchClass")


def test_the_tests_have_delta(spark, tmp_path):
    require_delta(spark)
    path = str(tmp_path / "table")
    spark.range(5).write.format("delta").save(path)
    assert spark.read.format("delta").load(path).count() == 5


class _Session:
    """A session without Delta, as far as `require_delta` asks."""

    version = "4.1.4"

    def __init__(self, spark, **settings):
        self._jvm = spark._jvm
        self.conf = settings


def test_delta_cannot_be_added_late_so_the_error_names_the_settings(spark):
    with pytest.raises(ConfigError) as caught:
        require_delta(_Session(spark))
    message = str(caught.value)
    assert "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension" in message
    assert (
        "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog" in message
    )


def test_databricks_builds_delta_in(spark):
    settings = {"spark.databricks.clusterUsageTags.clusterId": "1121-074501-abc"}
    require_delta(_Session(spark, **settings))


def test_the_jar_fits_the_scala_of_this_spark():
    assert connector_jar().endswith("spark-dl-connector_2.13-0.1.0.jar")


def test_stage_level_scheduling_is_refused_where_spark_has_none(spark):
    with pytest.raises(
        ConfigError, match=r"cores_per_worker.*spark\.task\.cpus=2 instead"
    ) as caught:
        worker_profile(spark, WorkerResources(cores=2))
    assert "only supported" in str(caught.value)
    assert worker_profile(spark, WorkerResources()) is None

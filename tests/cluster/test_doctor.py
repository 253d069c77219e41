"""The doctor on real executors: one thing is broken, its line turns red, the remedy mends it.

Every case starts sessions of its own: `make test-long` runs them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from shells import plain_environ

from spark_dl._jvm import connector_jar
from spark_dl.versions import PRIMARY_SPARK

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]

DEADLINE_S = 280
SPARK_DL = [sys.executable, "-c", "import sys; from spark_dl.cli import main; sys.exit(main())"]


@pytest.fixture
def config(tmp_path):
    """A config whose paths are all there."""
    (tmp_path / "table").mkdir()
    values = {
        "table": {"path": str(tmp_path / "table"), "format": "parquet"},
        "features": ["a"],
        "dataset": {"path": str(tmp_path / "dataset")},
        "model": {"fn": "model:build"},
        "cluster": {"num_workers": 2},
        "runs": str(tmp_path / "runs"),
        "output": {"path": str(tmp_path / "predictions"), "format": "parquet"},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def doctor(config):
    def ask(*words, **environ):
        done = subprocess.run(
            [*SPARK_DL, "doctor", "--config", str(config), "--json", *words],
            env=plain_environ() | environ,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.stdout.startswith("{"), done.stderr[-4000:]
        report = json.loads(done.stdout)
        assert done.returncode == (0 if report["ok"] else 2)
        return {check["name"]: check for check in report["checks"]}

    return ask


def conf(key, value):
    return ["--conf", f"{key}={value}"]


def red(report):
    return [name for name, check in report.items() if check["level"] == "error"]


def only(report, name):
    """Check that a line is red and no other one; return its remedy."""
    assert red(report) == [name], report
    return report[name]["remedy"]


def test_a_machine_that_is_well_has_no_red_line_and_keeps_nothing(doctor, config):
    report = doctor()
    assert red(report) == []
    assert report["executor job"]["text"].startswith("2 tasks answered")
    assert sorted(path.name for path in config.parent.iterdir()) == ["job.yaml", "table"]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("dynamic allocation", "spark.dynamicAllocation.enabled", "true"),
        ("pyspark memory", "spark.executor.pyspark.memory", "3g"),
    ],
)
def test_a_setting_that_breaks_trainings(doctor, name, key, value):
    assert key in only(doctor(*conf(key, value)), name)  # without it, all is well: the first test


def test_more_workers_than_slots(doctor):
    remedy = only(doctor("--set", "cluster.num_workers=5"), "task slots")
    number = re.search(r"set cluster\.num_workers to (\d+)", remedy)[1]
    assert red(doctor("--set", f"cluster.num_workers={number}")) == []


def test_the_connector_of_another_scala(doctor, tmp_path):
    other = tmp_path / "spark-dl-connector_2.12-0.1.0.jar"
    shutil.copy(connector_jar(PRIMARY_SPARK), other)
    remedy = only(doctor(*conf("spark.jars", other)), "connector")
    jar = re.search(r"spark\.jars=(\S+)", remedy)[1]
    assert red(doctor(*conf("spark.jars", jar))) == []


def test_a_session_without_delta_for_a_delta_table(doctor):
    table = ["--set", "output.format=delta"]
    broken = [*table, *conf("spark.sql.extensions", "")]
    remedy = only(doctor(*broken), "delta")
    lacking = re.findall(r"(spark\.[\w.]+)=(\S+)", remedy)
    assert lacking
    assert red(doctor(*broken, *(word for pair in lacking for word in conf(*pair)))) == []


def test_a_runs_folder_that_cannot_be_made(doctor, tmp_path):
    (tmp_path / "file").touch()
    report = doctor("--set", f"runs={tmp_path}/file/below/runs")
    assert str(tmp_path / "file") in report["storage, driver"]["text"]
    assert "mounted" in only(report, "storage, driver")


def test_a_java_that_this_spark_does_not_run_on(doctor, tmp_path):
    real = Path(shutil.which("java")).resolve()
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text(
        f'#!/bin/sh\n[ "$1" = -version ] && {{ echo \'openjdk version "11.0.1"\'; exit; }}\n'
        f'exec {real} "$@"\n'
    )
    java.chmod(0o755)
    report = doctor(JAVA_HOME=str(home))
    assert "JDK 17 or 21" in only(report, "java")
    assert "Java 11" in report["java"]["text"]
    assert red(doctor(JAVA_HOME=str(real.parents[1]))) == []


@pytest.fixture
def environment(tmp_path):
    """A Python for the executors whose packages are links to this one's."""
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--copies", home], check=True)
    here = Path(sysconfig.get_path("purelib"))
    packages = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for item in here.iterdir():
        if not (packages / item.name).exists():
            (packages / item.name).symlink_to(item)
    return home, packages


def test_executors_without_tensorflow(doctor, environment):
    home, packages = environment
    python = conf("spark.pyspark.python", home / "bin" / "python")
    (info,) = packages.glob("tensorflow-[0-9]*.dist-info")
    target = info.readlink()
    info.unlink()
    remedy = only(doctor(*python), "tensorflow")
    assert f"{home}/bin/python -m pip install 'spark-dl[tensorflow]'" in remedy
    info.symlink_to(target)  # what pip would do
    assert red(doctor(*python)) == []


def test_executors_that_lack_a_package_or_have_another_version(doctor, environment):
    home, packages = environment
    python = conf("spark.pyspark.python", home / "bin" / "python")
    (info,) = packages.glob("pandas-[0-9]*.dist-info")
    target = info.readlink()
    info.unlink()
    assert "pip install" in only(doctor(*python), "executor packages")
    other = packages / "pandas-1.9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pandas\nVersion: 1.9.9\n")
    report = doctor(*python)
    assert report["executor packages"]["level"] == "warning"
    assert "pandas 1.9.9" in report["executor packages"]["text"]
    shutil.rmtree(other)
    info.symlink_to(target)
    assert doctor(*python)["executor packages"]["level"] == "ok"


def test_a_job_that_hangs_is_ended_and_said_so(doctor, environment):
    home, packages = environment
    (packages / "sitecustomize.py").write_text("import time\ntime.sleep(200)\n")
    python = conf("spark.pyspark.python", home / "bin" / "python")
    report = doctor(*python, "--deadline-s", "60")
    only(report, "executor job")
    assert "ended after 60 s" in report["executor job"]["text"]
    assert report["tensorflow"]["level"] == "skipped"


def test_a_cluster_that_does_not_answer(doctor):
    master = ["--master", "spark://127.0.0.1:1", "--deadline-s", "15"]
    report = doctor(*master, *conf("spark.driver.host", "127.0.0.1"))
    assert red(report) in (["session"], ["task slots"])
    assert report["clocks"]["level"] == "skipped"


def test_gpus_that_spark_promises_and_tensorflow_does_not_see(doctor, tmp_path):
    script = tmp_path / "gpus.sh"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["0"]}\'\n')
    script.chmod(0o755)
    gpus = [
        *conf("spark.worker.resource.gpu.amount", "1"),
        *conf("spark.worker.resource.gpu.discoveryScript", script),
        *conf("spark.executor.resource.gpu.amount", "1"),
        *conf("spark.task.resource.gpu.amount", "1"),
    ]
    remedy = only(doctor(*gpus), "gpus")
    assert "take spark.executor.resource.gpu.amount" in remedy  # and all is well: the first test


def test_executors_whose_local_disk_is_full(doctor, tmp_path):
    small = tmp_path / "small"
    small.mkdir()  # Spark lays its jars there too: room for them, and little more
    mount = ["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: needs root")
    try:
        remedy = only(doctor(*conf("spark.local.dir", small)), "local disk")
    finally:
        unmount = [shutil.which("umount"), "-l", str(small)]
        subprocess.run(unmount, check=True)
    assert "spark.local.dir" in remedy
    roomy = tmp_path / "roomy"
    roomy.mkdir()
    assert red(doctor(*conf("spark.local.dir", roomy))) == []

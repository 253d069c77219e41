"""The doctor on real executors: one thing is broken, its line turns red, the remedy mends it.

Every case starts sessions of its own: `make test` runs two short ones, `make test-long` all others.
What needs hosts of its own is in `tests/clusters`, another Spark in `tests/clusters/matrix`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from doctors import conf, is_mended, only, red, turned

from spark_dl._jvm import connector_jar
from spark_dl.versions import PRIMARY_SPARK

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LONG = pytest.mark.long


def test_a_machine_that_is_well(doctor):
    assert red(doctor("--master", "local[2]")) == []


def test_more_workers_than_slots_of_this_machine(doctor):
    remedy = only(doctor("--master", "local[2]", "--set", "cluster.num_workers=5"), "task slots")
    assert "set cluster.num_workers to 2 or less" in remedy  # as the first test has it


@LONG
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
@LONG
def test_a_setting_that_breaks_trainings(doctor, name, key, value):
    assert key in only(doctor(*conf(key, value)), name)  # without it, all is well: the first test


@LONG
def test_more_workers_than_slots(doctor):
    remedy = only(doctor("--set", "cluster.num_workers=5"), "task slots")
    number = re.search(r"set cluster\.num_workers to (\d+)", remedy)[1]
    assert red(doctor("--set", f"cluster.num_workers={number}")) == []


@LONG
def test_the_connector_of_another_scala(doctor, tmp_path):
    other = tmp_path / "spark-dl-connector_2.12-0.1.0.jar"
    shutil.copy(connector_jar(PRIMARY_SPARK), other)
    remedy = only(doctor(*conf("spark.jars", other)), "connector")
    jar = re.search(r"spark\.jars=(\S+)", remedy)[1]
    assert red(doctor(*conf("spark.jars", jar))) == []


@LONG
def test_a_session_without_delta_for_a_delta_table(doctor):
    table = ["--set", "output.format=delta"]
    broken = [*table, *conf("spark.sql.extensions", "")]
    remedy = only(doctor(*broken), "delta")
    lacking = re.findall(r"(spark\.[\w.]+)=(\S+)", remedy)
    assert lacking
    assert red(doctor(*broken, *(word for pair in lacking for word in conf(*pair)))) == []


@LONG
def test_a_runs_folder_that_cannot_be_made(doctor, tmp_path):
    (tmp_path / "file").touch()
    report = doctor("--set", f"runs={tmp_path}/file/below/runs")
    assert str(tmp_path / "file") in report["storage, driver"]["text"]
    assert "mounted" in only(report, "storage, driver")
    assert is_mended(doctor("--set", f"runs={tmp_path}/runs"), "storage, driver")


@LONG
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


@LONG
def test_no_java_at_all(doctor, tmp_path):
    remedy = only(doctor(JAVA_HOME=str(tmp_path / "jdk")), "java")
    assert "set JAVA_HOME to one" in remedy  # the end of the test before


@LONG
def test_a_driver_of_an_old_python(doctor, tmp_path):
    """One that says so: an old one does not even import this package."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version = '3.10.14 (main)'")
    report = doctor(PYTHONPATH=str(tmp_path))
    asked = re.search(r"Python (3\.\d+)", only(report, "python"))[1]
    assert "Python 3.10.14" in report["python"]["text"]
    assert red(doctor()) == [], f"this is Python {asked} or newer"


@LONG
def test_ports_that_others_hold(doctor, free_ports):
    first, last = free_ports(6)
    narrow, wide = (f"cluster.ports={first}-{port}" for port in (first + 1, last))
    with contextlib.ExitStack() as stack:
        holders = [
            stack.enter_context(socket.create_server(("", port))) for port in (first, first + 1)
        ]
        assert "end what holds them" in only(doctor("--set", narrow), "port range")
        holders.pop().close()  # one for the driver, none for the executors
        report = doctor("--set", narrow)
        assert "widen cluster.ports" in only(report, "port range")
        assert "2 workers" in report["port range"]["text"]
        assert is_mended(doctor("--set", wide), "port range")


def another_python():
    """Return a Python of another minor version, or leave the test out."""
    here = f"python3.{sys.version_info.minor}"
    names = [f"python3.{minor}" for minor in range(10, 15) if not here.endswith(f".{minor}")]
    on_path = [found for name in names if (found := shutil.which(name))]
    # pyenv and the like have versions beside each other
    beside = [
        str(path) for name in names for path in Path(sys.base_prefix).parent.glob(f"*/bin/{name}")
    ]
    for python in (*on_path, *beside):
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip(f"there is no other Python than {here} here")


@LONG
def test_executors_of_another_python(doctor):
    report = doctor(*conf("spark.pyspark.python", another_python()))
    remedy = only(report, "executor python")
    assert report["executor job"]["level"] == "skipped"
    (setting,) = re.findall(r"(spark\S+) \(executors\)", remedy)
    assert is_mended(doctor(*conf(setting, sys.executable)), "executor python")


@LONG
def test_executors_whose_python_is_not_there(doctor, tmp_path):
    remedy = only(doctor(*conf("spark.pyspark.python", tmp_path / "python")), "executor job")
    (setting,) = re.findall(r"their Python \((spark[\w.]+)", remedy)
    assert is_mended(doctor(*conf(setting, sys.executable)), "executor job")


@LONG
def test_executors_with_a_bare_python(doctor, tmp_path):
    home = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    remedy = only(
        doctor(*conf("spark.pyspark.python", home / "bin" / "python")), "executor packages"
    )
    assert f"{home}/bin/python -m pip install 'spark-dl[tensorflow]" in remedy
    (setting,) = re.findall(r"let (spark\S+) name another Python", remedy)
    assert is_mended(doctor(*conf(setting, sys.executable)), "executor packages")


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


@LONG
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


@LONG
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


@LONG
@pytest.mark.parametrize(("ahead_s", "level"), [(600, "error"), (30, "warning")])
def test_clocks_that_differ(doctor, environment, ahead_s, level):
    home, packages = environment
    python = conf("spark.pyspark.python", home / "bin" / "python")
    shift = packages / "sitecustomize.py"
    shift.write_text(f"import time\nreal = time.time\ntime.time = lambda: real() + {ahead_s}\n")
    report = doctor(*python)
    assert turned(report) == {"clocks": level}
    assert "synchronise" in report["clocks"]["remedy"]
    shift.unlink()
    assert is_mended(doctor(*python), "clocks")


@LONG
def test_a_job_that_hangs_is_ended_and_said_so(doctor, environment):
    home, packages = environment
    (packages / "sitecustomize.py").write_text("import time\ntime.sleep(200)\n")
    python = conf("spark.pyspark.python", home / "bin" / "python")
    report = doctor(*python, "--deadline-s", "60")
    only(report, "executor job")
    assert "ended after 60 s" in report["executor job"]["text"]
    assert report["tensorflow"]["level"] == "skipped"


@LONG
def test_a_cluster_that_does_not_answer(doctor):
    master = ["--master", "spark://127.0.0.1:1", "--deadline-s", "15"]
    report = doctor(*master, *conf("spark.driver.host", "127.0.0.1"))
    assert "--master is reachable" in only(report, "session")  # tests/clusters has one that is
    assert report["clocks"]["level"] == "skipped"


@LONG
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


@LONG
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

"""`spark-dl submit --print`: the line for each kind of cluster."""

from __future__ import annotations

import dataclasses
import itertools
import shlex

import pytest

from spark_dl.cli import main
from spark_dl.cli.submit.plan import Installed, Target, plan, render
from spark_dl.config import JobConfig
from spark_dl.errors import ConfigError
from spark_dl.versions import SPARK_LINES

CONFIG = JobConfig(
    dataset={"path": "/d"}, model={"fn": "m:build"}, runs="/r", cluster={"num_workers": 3}
)
DELTA = CONFIG.model_copy(update=dict(JobConfig(table={"path": "/t"}, output={"path": "/o"})))
HERE = Installed(
    spark_submit=("/spark/bin/spark-submit",),
    python="/env/bin/python",
    entry="/pkg/entry/job.py",
    spark=SPARK_LINES["4.1"],
    connector="/pkg/connector.jar",
    model_file="/home/ann/m.py",
)


def line(target, job="train", config=CONFIG, installed=HERE):
    return [
        word
        for flag in plan(job, config, "/home/ann/job.yaml", target, installed)
        for word in flag.words
    ]


def options(words):
    """The flags of a line: name → values."""
    found = {}
    for name, value in itertools.pairwise(words):
        if name == "--conf":
            key, _, text = value.partition("=")
            found[key] = text
        elif name.startswith("--"):
            found[name] = value
    return found


def test_yarn_in_cluster_mode_ships_all_that_the_driver_needs():
    target = Target(kind="yarn", deploy_mode="cluster", archive="env.tar.gz", executor_cores=2)
    words = line(target)
    said = options(words)
    assert (said["--master"], said["--deploy-mode"]) == ("yarn", "cluster")
    assert (said["--num-executors"], said["spark.task.cpus"]) == ("3", "2")
    assert said["--archives"] == "env.tar.gz#environment"
    assert said["spark.pyspark.python"] == "./environment/bin/python"
    assert said["spark.yarn.appMasterEnv.PYSPARK_PYTHON"] == "./environment/bin/python"
    assert said["--files"] == "/home/ann/job.yaml"
    assert said["--py-files"] == "/home/ann/m.py"
    assert words[-4:] == ["/pkg/entry/job.py", "train", "--config", "job.yaml"]


def test_yarn_in_client_mode_reads_the_config_where_it_lies():
    words = line(Target(kind="yarn", python="/opt/env/bin/python"))
    said = options(words)
    assert said["spark.pyspark.python"] == "/opt/env/bin/python"
    assert said["spark.pyspark.driver.python"] == "/env/bin/python"
    assert "--files" not in said
    assert words[-1] == "/home/ann/job.yaml"


def test_standalone_counts_cores_and_needs_its_address():
    target = Target(kind="standalone", master="spark://h:7077", executors=4, executor_cores=2)
    assert options(line(target))["--total-executor-cores"] == "8"
    with pytest.raises(ConfigError, match="spark://HOST:7077"):
        line(dataclasses.replace(target, master=None))


@pytest.mark.parametrize("kind", ["local", "local-cluster", "standalone"])
def test_cluster_mode_that_spark_lacks_is_refused(kind):
    with pytest.raises(ConfigError, match=r"cluster mode|client mode"):
        line(Target(kind=kind, deploy_mode="cluster", master="spark://h:1"))


def test_delta_comes_as_jars_or_as_coordinates_and_only_where_it_is_used():
    target = Target(kind="yarn")
    assert "spark.sql.extensions" not in options(line(target))
    assert options(line(target, config=DELTA))["--packages"].startswith("io.delta:delta-spark_4.1")
    with_jars = dataclasses.replace(HERE, delta=("/pkg/delta.jar",))
    said = options(line(target, config=DELTA, installed=with_jars))
    assert said["--jars"] == "/pkg/connector.jar,/pkg/delta.jar"
    assert "--packages" not in said


def test_what_the_user_asks_for_comes_last_and_wins():
    said = options(line(Target(kind="yarn", conf=("spark.executor.memoryOverhead=8g",))))
    assert said["spark.executor.memoryOverhead"] == "8g"
    with pytest.raises(ConfigError, match="expected key=value"):
        line(Target(kind="yarn", conf=("nonsense",)))


def test_only_trainings_need_all_their_executors_at_once():
    target = Target(kind="yarn", executor_cores=4)
    assert "spark.dynamicAllocation.enabled" in options(line(target))
    assert "spark.dynamicAllocation.enabled" not in options(line(target, job="prepare"))
    assert "spark.task.cpus" not in options(line(target, job="prepare"))


def test_the_script_is_a_comment_for_each_flag_and_one_command():
    flags = plan("train", DELTA, "/home/ann/my job.yaml", Target(kind="yarn"), HERE)
    assert all(flag.why for flag in flags)
    comments, _, command = render(flags).partition("\n/spark/bin/spark-submit")
    assert all(row.startswith("#   ") for row in comments.splitlines())
    assert all(flag.shown in comments for flag in flags)
    words = shlex.split("/spark/bin/spark-submit" + command.replace("\\\n", ""))
    assert words == [word for flag in flags for word in flag.words]


def test_the_verb_prints_what_this_machine_would_run(tmp_path, capsys):
    config = tmp_path / "job.yaml"
    config.write_text("dataset: {path: /d}\nmodel: {fn: 'tiny:build'}\nruns: /r\n")
    (tmp_path / "tiny.py").touch()
    assert main(["submit", "train", "--config", str(config), "--print"]) == 0
    printed = capsys.readouterr().out
    assert "--master 'local-cluster[2,1,1024]'" in printed
    assert f"--py-files {tmp_path}/tiny.py" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--master", "mesos://x"], "or say --cluster"),
        (["--cluster", "standalone"], "spark://HOST:7077"),
    ],
)
def test_what_cannot_be_is_exit_2(words, message, tmp_path, capsys):
    config = tmp_path / "job.yaml"
    config.write_text("dataset: {path: /d}\nmodel: {fn: 'tiny:build'}\nruns: /r\n")
    assert main(["submit", "train", "--config", str(config), "--print", *words]) == 2
    assert message in capsys.readouterr().err

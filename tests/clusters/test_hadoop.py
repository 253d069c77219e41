"""The clusters of the tests themselves: nothing else is worth a look while these fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from clusters.environment import ROOT, run


def test_hdfs_keeps_what_it_is_given(hadoop, tmp_path):
    text = tmp_path / "text"
    text.write_text("kept")
    hadoop.fs("-mkdir", "-p", "/try")
    hadoop.fs("-put", str(text), "/try/text")
    assert hadoop.fs("-cat", f"{hadoop.uri}/try/text") == "kept"


def test_the_environment_is_the_wheel_and_has_no_spark_of_its_own(environment):
    code = "import importlib.util as u, spark_dl; print(spark_dl.__file__, u.find_spec('pyspark'))"
    done = subprocess.run(
        [environment.python, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={},
    )
    file, spark = done.stdout.split()
    assert "site-packages" in file
    assert spark == "None"


#: A view of HDFS, as sites have one over several.
VIEW = (
    "<property><name>fs.viewfs.mounttable.site.link./data</name>"
    "<value>{uri}/viewed</value></property>"
)


@pytest.fixture
def view(hadoop, tmp_path):
    """Give settings that know the view, and a folder in it."""
    conf = tmp_path / "conf"
    shutil.copytree(hadoop.conf, conf)
    core = (conf / "core-site.xml").read_text()
    end = "</configuration>"
    (conf / "core-site.xml").write_text(core.replace(end, VIEW.format(uri=hadoop.uri) + end))
    hadoop.fs("-mkdir", "-p", "/viewed")
    return {"HADOOP_CONF_DIR": str(conf), "SPARK_DL_CONTRACT_ROOT": "viewfs://site/data/contract"}


def contract(environ):
    """Hold what every kind of storage must do against one that the environment names."""
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    run(*command, "tests/storage/test_contract.py", cwd=ROOT, env=os.environ | environ)


def test_the_contract_of_storage_holds_on_hdfs(hadoop):
    contract({**hadoop.environ, "SPARK_DL_CONTRACT_ROOT": f"{hadoop.uri}/contract"})


def test_it_holds_on_a_view_of_hdfs(hadoop, view):
    contract(view)
    hadoop.fs("-test", "-d", "/viewed/contract")

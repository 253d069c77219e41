"""The clusters of the tests themselves: nothing else is worth a look while these fail."""

from __future__ import annotations

import os
import subprocess
import sys

from clusters.environment import ROOT


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


def test_the_contract_of_storage_holds_on_hdfs(hadoop):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/storage/test_contract.py",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
        cwd=ROOT,
        env={
            **os.environ,
            **hadoop.environ,
            "SPARK_DL_CONTRACT_ROOT": f"{hadoop.uri}/contract",
        },
    )
    assert done.returncode == 0, done.stdout[-6000:]

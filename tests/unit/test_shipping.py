"""What goes to the executors by value, and what by name."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import types

import pytest

from spark_dl.cluster.shipping import pickle_by_value
from spark_dl.errors import ConfigError

ELSEWHERE = """
import pickle, sys
print(pickle.loads(sys.stdin.buffer.read())(21))
"""


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A module that lies beside the driver's script."""
    (tmp_path / "beside_the_script.py").write_text(
        "FACTOR = 2\n\ndef times(value):\n    return value * FACTOR\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("beside_the_script")
    sys.modules.pop("beside_the_script")


def run_elsewhere(blob, folder):
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=blob,
        capture_output=True,
        check=False,
        cwd=folder,
        timeout=120,
    )
    return done.stdout.decode().strip() or done.stderr.decode()


def test_the_users_files_go_by_value(beside, tmp_path_factory):
    blob = pickle_by_value(beside.times)
    assert run_elsewhere(blob, tmp_path_factory.mktemp("elsewhere")) == "42"
    assert blob == pickle_by_value(beside.times), "the first call has left nothing behind"


def test_a_module_may_have_two_names(beside, monkeypatch, tmp_path_factory):
    monkeypatch.setitem(sys.modules, "another_name_of_it", beside)
    blob = pickle_by_value(beside.times)
    assert run_elsewhere(blob, tmp_path_factory.mktemp("elsewhere")) == "42"


def test_spark_goes_by_name_wherever_it_lies(monkeypatch):
    """In YARN's containers it is a .zip, in a distribution a folder below SPARK_HOME."""
    module = types.ModuleType("pyspark.of_a_zip")
    module.__file__ = "/container/pyspark.zip/pyspark/of_a_zip.py"
    exec("def double(value):\n    return 2 * value", module.__dict__)  # noqa: S102 - a module by hand
    monkeypatch.setitem(sys.modules, "pyspark.of_a_zip", module)
    blob = pickle_by_value(module.double)
    assert pickle.loads(blob) is module.double  # noqa: S301 - our own


def test_what_cannot_be_sent_is_named():
    lock = __import__("threading").Lock()
    with pytest.raises(ConfigError, match=r"cannot send .*cannot pickle '_thread\.lock'"):
        pickle_by_value(lambda: lock)

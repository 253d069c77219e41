"""The doctor's line on memory, where YARN ends a container that takes more than it asked for."""

from __future__ import annotations

import functools
import re
import sys

import doctors
import numpy as np
import pytest
from clusters.flow import ON_YARN
from doctors import conf, is_mended, only

from spark_dl.schema import Role, SpecEntry
from spark_dl.testing import write_shards

pytestmark = pytest.mark.timeout(900)

#: Of 25 million parameters: 500 MB with gradients and Adam's moments.
WIDE = """
def build(spec, params):
    import keras

    return keras.Sequential([keras.Input((1000,)), keras.layers.Dense(25_000, use_bias=False)])
"""


@pytest.fixture
def doctor(hadoop, tmp_path):
    settings = {**ON_YARN, "spark.pyspark.python": sys.executable, "spark.ui.enabled": "false"}
    del settings["spark.master"]
    given = [word for pair in settings.items() for word in conf(*pair)]
    config = doctors.write_config(tmp_path)
    return functools.partial(
        doctors.ask, "--config", config, "--master", "yarn", *given, **hadoop.environ
    )


def test_an_overhead_without_room_for_tensorflow(doctor):
    remedy = only(doctor(*conf("spark.executor.memoryOverhead", "512m")), "memory overhead")
    setting, value = re.search(r"set (\S+)=(\S+)", remedy).groups()
    assert is_mended(doctor(*conf(setting, value)), "memory overhead")


def test_an_overhead_without_room_for_the_model(doctor, tmp_path):
    entry = SpecEntry(name="a", column="a", dtype="float32", role=Role.FEATURE)
    write_shards(str(tmp_path / "dataset"), (entry,), {"train": {"a": np.zeros(9, np.float32)}})
    (tmp_path / "model.py").write_text(WIDE)
    report = doctor(*conf("spark.executor.memoryOverhead", "1024m"))
    remedy = only(report, "memory overhead")
    assert "25,000,000 parameters" in report["memory overhead"]["text"]
    setting, value = re.search(r"set (\S+)=(\S+)", remedy).groups()
    assert is_mended(doctor(*conf(setting, value)), "memory overhead")

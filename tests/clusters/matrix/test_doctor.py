"""The doctor where SPARK_HOME holds another Spark than the one that is installed here."""

from __future__ import annotations

import os
from pathlib import Path

import doctors
import pyspark
import pytest
from doctors import is_mended, only

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
HERE = os.path.dirname(pyspark.__file__)


def test_another_spark_in_spark_home(tmp_path):
    config = doctors.write_config(tmp_path)
    (other,) = (ROOT / ".venv").glob("lib/python*/site-packages/pyspark")  # the set-up's own
    report = doctors.ask("--config", config, SPARK_HOME=str(other))
    assert f"point SPARK_HOME at Spark {pyspark.__version__}" in only(report, "spark")
    assert report["session"]["level"] == "skipped"
    assert is_mended(doctors.ask("--config", config, SPARK_HOME=HERE), "spark")

"""The tests of `predict`, of evaluations and of the job `infer`, as a client of Spark Connect."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from clusters.connect.packages import connect_packages
from clusters.environment import ROOT

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(1500)]

FILES = ("test_inference.py", "test_any_model.py", "test_evaluate.py", "test_infer_job.py")


def test_a_table_is_scored_over_connect():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--connect", "-p", "no:cacheprovider"),
            *(f"tests/spark/{name}" for name in FILES),
        ],
        env={**os.environ, "PYTHONPATH": str(connect_packages())},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]

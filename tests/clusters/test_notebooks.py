"""Train from a Delta table and score it by the notebooks, and the quick start, on both sessions."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from clusters.connect.packages import connect_packages
from clusters.environment import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).parent / "connect" / "notebooks.py"


@pytest.mark.parametrize("kind", ["classic", pytest.param("connect", marks=pytest.mark.smoke)])
def test_a_job_of_two_notebooks(kind, tmp_path):
    environ = dict(os.environ)
    if kind == "connect":
        environ["PYTHONPATH"] = str(connect_packages())
    said = run(sys.executable, SCRIPT, kind, tmp_path, env=environ, cwd=tmp_path, timeout_s=840)
    told = json.loads(said.splitlines()[-1])
    assert told["model"] == f"{tmp_path}/runs/job-7/model/1"
    assert told["again"] == told["model"], "a repaired task trains nothing again"
    # the second run adds nothing; the table's next version is scored anew
    assert told["quick_start"] == ["bought", "prediction", "visit"]
    assert told["counts"] == [[800], [800], [800, 900]]

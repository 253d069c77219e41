"""Train from a Delta table and score it by the notebooks, and the quick start, on both sessions.

From the wheel, as on a machine that has it beside pyspark.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clusters.connect.packages import connect_packages
from clusters.environment import beside_spark, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).parent / "connect" / "notebooks.py"


@pytest.mark.parametrize("kind", ["classic", pytest.param("connect", marks=pytest.mark.smoke)])
def test_a_job_of_two_notebooks(kind, environment, tmp_path, tmp_path_factory):
    python, environ = beside_spark(environment, tmp_path_factory.mktemp("python"))
    if kind == "connect":
        environ["PYTHONPATH"] = str(connect_packages())
    said = run(python, SCRIPT, kind, tmp_path, env=environ, cwd=tmp_path, timeout_s=840)
    told = json.loads(said.splitlines()[-1])
    assert all("/site-packages/spark_dl/" in path for path in told["packages"])
    assert told["model"] == f"{tmp_path}/runs/job-7/model/1"
    assert told["again"] == told["model"], "a repaired task trains nothing again"
    # the second run adds nothing; the table's next version is scored anew
    assert told["quick_start"] == ["bought", "prediction", "visit"]
    assert told["counts"] == [[800], [800], [800, 900]]

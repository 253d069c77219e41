"""`spark.authenticate` and `spark.network.crypto` on: everything still works, from the wheel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clusters.environment import beside_spark, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).with_name("encrypted_training.py")


def test_jobs_run_where_sparks_traffic_is_encrypted(environment, tmp_path, tmp_path_factory):
    python, environ = beside_spark(environment, tmp_path_factory.mktemp("python"))
    said = run(python, SCRIPT, tmp_path, env=environ, cwd=tmp_path, timeout_s=580)
    ours, *told = (json.loads(line) for line in said.splitlines() if line.startswith("{"))
    assert "/site-packages/spark_dl/" in ours["package"]
    assert told == [{"backend": name, "rows": 80} for name in ("barrier", "tensorflowonspark")]

"""`spark.authenticate` and `spark.network.crypto` on: everything still works."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from clusters.environment import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).with_name("encrypted_training.py")


def test_jobs_run_where_sparks_traffic_is_encrypted(tmp_path):
    said = run(sys.executable, SCRIPT, tmp_path, cwd=tmp_path, timeout_s=580)
    told = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert told == [{"backend": name, "rows": 80} for name in ("barrier", "tensorflowonspark")]

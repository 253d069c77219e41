"""Four kills at random steps, of both backends together; `make soak` does many of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from shells import plain_environ

pytestmark = [pytest.mark.faults, pytest.mark.smoke, pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).parent / "soak.py"
#: With this seed a driver, a child, an executor and an agent.
KILLS, SEED = 4, 143


def test_a_run_under_fire_ends_as_one_that_was_left_alone():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", str(KILLS), "--seed", str(SEED), "--json"],
        capture_output=True,
        text=True,
        env=plain_environ(),
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {row["backend"] for row in rows} == {"barrier", "tensorflowonspark"}
    assert sum(row["kills"] for row in rows) == KILLS
    assert all(row["equal_weights"] and row["equal_records"] for row in rows)

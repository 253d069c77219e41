"""Each benchmark runs, small: what its figures are is not looked at here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from clusters.environment import ROOT
from shells import plain_environ

SCRIPTS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_there_are_benchmarks():
    assert len(SCRIPTS) > 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_runs(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), "--quick", "--json"],
        env=plain_environ(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["bench"] == Path(script).stem

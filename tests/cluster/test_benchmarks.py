"""Each benchmark runs, small: what its figures are is not looked at here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from clusters.environment import ROOT, run
from shells import plain_environ

SCRIPTS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.smoke,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]


def test_there_are_benchmarks():
    assert len(SCRIPTS) > 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_runs(script, tmp_path):
    command = (sys.executable, ROOT / "benchmarks" / script, "--quick", "--json")
    said = run(*command, env=plain_environ(), cwd=tmp_path, timeout_s=580)
    lines = [json.loads(line) for line in said.splitlines()]
    assert lines[-1]["bench"] == Path(script).stem

"""Asking the real `spark-dl doctor`, and what its report must look like."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import yaml
from shells import plain_environ

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 280

Report = dict[str, dict[str, str]]


def spark_dl(python: str = sys.executable) -> list[str]:
    """Return the command `spark-dl` of a Python: what is installed there, not what lies here."""
    return [python, "-P", "-c", "import sys; from spark_dl.cli import main; sys.exit(main())"]


def write_config(folder: Path, *, seen_at: str | None = None) -> Path:
    """Write a config whose paths are all there, below a folder or where others see it."""
    (folder / "table").mkdir()
    root = seen_at or str(folder)
    values = {
        "table": {"path": f"{root}/table", "format": "parquet"},
        "features": ["a"],
        "dataset": {"path": f"{root}/dataset"},
        "model": {"fn": "model:build"},
        "cluster": {"num_workers": 2},
        "runs": f"{root}/runs",
        "output": {"path": f"{root}/predictions", "format": "parquet"},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def ask(*words, python: str = sys.executable, **environ: str) -> Report:
    """Run the doctor and return its lines by name."""
    done = subprocess.run(
        [*spark_dl(python), "doctor", "--json", *map(str, words)],
        env=plain_environ() | environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return lines_of(done)


def lines_of(done: subprocess.CompletedProcess[str]) -> Report:
    """Return the lines of a doctor that has ended, by name."""
    assert done.stdout.startswith("{"), done.stderr[-4000:]
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 2)
    return {check["name"]: check for check in report["checks"]}


def conf(key: str, value: object) -> list[str]:
    return ["--conf", f"{key}={value}"]


def turned(report: Report) -> dict[str, str]:
    """Return the level of each line that is neither ok nor skipped."""
    levels = {name: check["level"] for name, check in report.items()}
    return {name: level for name, level in levels.items() if level not in ("ok", "skipped")}


def red(report: Report) -> list[str]:
    return [name for name, level in turned(report).items() if level == "error"]


def only(report: Report, name: str) -> str:
    """Check that a line is red and no other one; return its remedy."""
    assert red(report) == [name], report
    return report[name]["remedy"]


def only_warned(report: Report, name: str) -> str:
    """Check that a line warns and no other one does, nor is red; return its remedy."""
    assert turned(report) == {name: "warning"}, report
    return report[name]["remedy"]


def is_mended(report: Report, name: str) -> bool:
    """Whether a line is well now, and no other red."""
    return red(report) == [] and report[name]["level"] == "ok"

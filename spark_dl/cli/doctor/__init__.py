"""``spark-dl doctor``: would a job run here, on that cluster, with this config?

Each line is ok, warning, error or skipped (what it needs has an error of its own). Exit code: 0
without errors, 2 with an error; --strict counts warnings as errors. Nothing is changed: files that
are written to try a path out are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from spark_dl._jvm import brief_cause
from spark_dl.cli.doctor.cluster import CLUSTER
from spark_dl.cli.doctor.findings import Check, Finding, Level, examine
from spark_dl.cli.doctor.gather import Question, gather, session_for, within
from spark_dl.cli.doctor.hosts import HOSTS
from spark_dl.cli.doctor.installed import INSTALLED, ON_EXECUTORS
from spark_dl.config import load_config
from spark_dl.errors import EXIT_USER, ConfigError, TimeoutExpiredError

if TYPE_CHECKING:
    import argparse

    from spark_dl.cli.doctor.facts import Facts

__all__ = ["CHECKS", "add_arguments", "diagnose", "run"]

#: In the order in which things depend on each other: the first error is the one to mend first.
CHECKS: Final[tuple[Check, ...]] = (*INSTALLED, *CLUSTER[:4], *ON_EXECUTORS, *CLUSTER[4:], *HOSTS)
_MARKS: Final = {
    Level.OK: "ok     ",
    Level.WARNING: "WARNING",
    Level.ERROR: "ERROR  ",
    Level.SKIPPED: "skipped",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("--config", metavar="FILE", help="check also what this YAML asks for")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    add("--master", metavar="URL", help="the cluster; default: the one that a job would get")
    add("--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting of Spark")
    add("--json", action="store_true", help="one JSON object instead of lines")
    add("--strict", action="store_true", help="warnings count as errors")
    add("--deadline-s", type=float, default=120.0, help="end what hangs after so long (120)")


def run(options: argparse.Namespace) -> int:
    """Gather, judge, report."""
    config = load_config(options.config, options.overrides) if options.config else None
    if options.config:  # as the jobs do
        sys.path.append(os.path.dirname(os.path.abspath(options.config)))
    question = Question(
        config,
        master=options.master,
        conf=dict(_setting(text) for text in options.conf),
        deadline_s=options.deadline_s,
    )
    with contextlib.ExitStack() as stack:
        spark, problem = None, None
        try:
            spark = within(
                question.deadline_s,
                lambda: stack.enter_context(session_for(question)),
                what="a Spark session",
            )
        except Exception as error:  # noqa: BLE001 - Spark fails in many ways: that is the finding
            problem = brief_cause(error)
            hangs = isinstance(error, TimeoutExpiredError)
        else:
            hangs = False
        findings = diagnose(gather(question, spark, problem))
        sys.stdout.write(as_json(findings) if options.json else as_text(findings))
        sys.stdout.flush()
        code = exit_code(findings, strict=options.strict)
        if hangs:
            # the thread that waits for Spark cannot be ended: end the process around it
            os._exit(code)
    return code


def diagnose(facts: Facts) -> dict[str, Finding]:
    """Return what each check finds, in their order."""
    return {check.name: examine(check, facts) for check in CHECKS}


def exit_code(findings: dict[str, Finding], *, strict: bool) -> int:
    """Return 0, or 2 when something must be changed first."""
    bad = {Level.ERROR, Level.WARNING} if strict else {Level.ERROR}
    return EXIT_USER if any(finding.level in bad for finding in findings.values()) else 0


def as_text(findings: dict[str, Finding]) -> str:
    """Return a line a check, the remedy under those that need one, and a count."""
    width = max(map(len, findings))
    lines = []
    for name, finding in findings.items():
        lines.append(f"{_MARKS[finding.level]}  {name.ljust(width)}  {finding.text}")
        if finding.remedy:
            lines.append(f"{' ' * (11 + width)}→ {finding.remedy}")
    counts = ", ".join(f"{count} {level}" for level, count in _count(findings).items() if count)
    return "\n".join([*lines, counts]) + "\n"


def as_json(findings: dict[str, Finding]) -> str:
    """Return the report for scripts."""
    report: dict[str, Any] = {
        "ok": exit_code(findings, strict=False) == 0,
        "count": _count(findings),
        "checks": [
            {"name": name, "level": f.level.value, "text": f.text, "remedy": f.remedy or None}
            for name, f in findings.items()
        ],
    }
    return json.dumps(report, indent=2) + "\n"


def _count(findings: dict[str, Finding]) -> dict[str, int]:
    levels = [finding.level for finding in findings.values()]
    return {level.value: levels.count(level) for level in Level}


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        msg = f"--conf {text}: expected key=value, such as spark.executor.memory=4g"
        raise ConfigError(msg)
    return key, value

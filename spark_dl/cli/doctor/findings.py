"""One line of the doctor's report, and what makes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from spark_dl.cli.doctor.facts import Facts

__all__ = ["Check", "Finding", "Level", "error", "examine", "ok", "warning"]


class Level(StrEnum):
    """How bad it is.

    - OK: as it should be.
    - WARNING: works, but not as well as it could, or not everywhere.
    - ERROR: a job will fail.
    - SKIPPED: could not be looked at, because of an error that has a line of its own, or because
      there is nothing to look at.
    """

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found.

    Attributes:
        level: how bad it is.
        text: what is so.
        remedy: what to do; empty when all is well.
    """

    level: Level
    text: str
    remedy: str = ""


def ok(text: str) -> Finding:
    """All is well."""
    return Finding(level=Level.OK, text=text)


def warning(text: str, remedy: str) -> Finding:
    """It works, though."""
    return Finding(level=Level.WARNING, text=text, remedy=remedy)


def error(text: str, remedy: str) -> Finding:
    """A job will fail."""
    return Finding(level=Level.ERROR, text=text, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        name: of the line, for people and for scripts.
        judge: facts → finding; pure.
        needs: what must have been gathered: ``session``, ``executors`` or nothing.
    """

    name: str
    judge: Callable[[Facts], Finding]
    needs: str = ""


def examine(check: Check, facts: Facts) -> Finding:
    """Return what a check finds; one whose facts are missing is skipped, not blamed."""
    if check.needs and facts.session is None:
        return Finding(level=Level.SKIPPED, text="needs a Spark session")
    if check.needs == "executors" and not facts.executors:
        return Finding(level=Level.SKIPPED, text="needs an answer of the executors")
    return check.judge(facts)

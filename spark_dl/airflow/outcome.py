"""What a task is to do when spark-submit has ended: pure decisions, without Airflow."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from spark_dl.errors import EXIT_RETRY, EXIT_USER
from spark_dl.storage import JobState

if TYPE_CHECKING:
    from spark_dl.storage import JobStatus

__all__ = ["Outcome", "Verdict", "exit_code_in", "judge", "task_run_id"]

_OVER: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
#: Of the 100 characters of a run id some are left for the job's name before it.
_ID_LENGTH: Final = 80
_EXIT_CODE: Final = re.compile(r"[Ee]rror code is: (-?\d+)")
_CANCELLED: Final = (130, 143)


class Outcome(StrEnum):
    """How a task ends."""

    DONE = "done"
    RETRY = "retry"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An outcome and its reason.

    Attributes:
        outcome: what the task does.
        reason: why, for the task's log.
    """

    outcome: Outcome
    reason: str


def judge(
    before: JobStatus | None, after: JobStatus | None, *, is_ok: bool, exit_code: int | None = None
) -> Verdict:
    """Decide how a task ends.

    ``status.json`` decides where this try wrote one, because on YARN in cluster mode spark-submit's
    exit code says nothing; else the exit code does.

    Args:
        before: what ``status.json`` said before the job was submitted, `None` without one.
        after: what it says now.
        is_ok: whether spark-submit ended well.
        exit_code: its exit code where that is known.

    Example:
        >>> judge(None, None, is_ok=False, exit_code=75).outcome
        <Outcome.RETRY: 'retry'>
    """
    if after is not None and (after != before or is_ok):
        return _by_status(after, is_ok=is_ok)
    return _by_exit_code(0 if is_ok else exit_code)


def _by_status(status: JobStatus, *, is_ok: bool) -> Verdict:
    told = f"{status.job} {status.id} {status.status}"
    if status.status is JobState.SUCCEEDED:
        return Verdict(outcome=Outcome.DONE, reason=told)
    if status.status not in _OVER:
        if is_ok:
            reason = (
                f"spark-submit has ended, but {told}: let it wait for the job, "
                "spark.yarn.submit.waitAppCompletion=true"
            )
            return Verdict(outcome=Outcome.FAIL, reason=reason)
        return Verdict(outcome=Outcome.RETRY, reason=f"the driver vanished while {told}")
    reason = f"{told}: {status.error.error_class}: {status.error.message}" if status.error else told
    may_help = status.status is JobState.FAILED and status.error and status.error.retryable
    return Verdict(outcome=Outcome.RETRY if may_help else Outcome.FAIL, reason=reason)


def _by_exit_code(code: int | None) -> Verdict:
    if code == 0:
        return Verdict(outcome=Outcome.DONE, reason="spark-submit ended well")
    if code == EXIT_USER:
        reason = "exit code 2: settings, data or your code must change; see the log above"
        return Verdict(outcome=Outcome.FAIL, reason=reason)
    if code in _CANCELLED:
        return Verdict(outcome=Outcome.FAIL, reason=f"exit code {code}: the job was cancelled")
    if code == EXIT_RETRY:
        return Verdict(outcome=Outcome.RETRY, reason="exit code 75: trying again may help")
    # 1 is also what spark-submit itself ends with when it does not reach the cluster
    known = "without a code" if code is None else f"with exit code {code}"
    reason = f"spark-submit ended {known} before the job wrote its status; see the log above"
    return Verdict(outcome=Outcome.RETRY, reason=reason)


def exit_code_in(message: str) -> int | None:
    """Return spark-submit's exit code from what Airflow's hook raises, `None` where it has none.

    Example:
        >>> exit_code_in("Cannot execute: spark-submit job.py. Error code is: 2.")
        2
    """
    found = _EXIT_CODE.search(message)
    return int(found[1]) if found else None


def task_run_id(dag_id: str, run_id: str) -> str:
    """Return the id of a job's run for one run of a DAG: every try of the task gets the same.

    So a retry, and a task that is cleared in the UI, go on with the run and start no other.

    Args:
        dag_id: of the DAG.
        run_id: Airflow's own, such as ``manual__2026-11-25T22:00:00+00:00``.

    Example:
        >>> task_run_id("digits", "manual__2026-11-25T22:00:00+00:00")
        'digits-manual__2026-11-25T22-00-00-00-00'
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{dag_id}-{run_id}").lstrip("._-")
    if len(name) <= _ID_LENGTH:
        return name
    return f"{name[: _ID_LENGTH - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

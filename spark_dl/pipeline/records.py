"""The id and the `status.json` of a job that is no training."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from spark_dl.runs import Record, read_status, recorded
from spark_dl.storage import RunPaths, job_run_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spark_dl.config import JobConfig

__all__ = ["job_record"]


@contextlib.contextmanager
def job_record(job: str, config: JobConfig) -> Iterator[tuple[str, Record | None]]:
    """Give a job an id and, where the config names a folder of runs, its `status.json` there."""
    job_id = job_run_id(job, config.run_id)
    if config.runs is None:
        yield job_id, None
        return
    paths = RunPaths(runs=config.runs, run_id=job_id)
    before = read_status(paths)
    with recorded(job, paths, attempt=before.attempt + 1 if before else 1) as record:
        yield job_id, record

"""File systems, run directories and the files in them."""

from spark_dl.storage.filesystem import (
    Storage,
    is_local,
    join,
    local_path,
    normalise,
    spark_uri,
)
from spark_dl.storage.paths import RunPaths, job_run_id, new_run_id
from spark_dl.storage.status import JobState, JobStatus, finite

__all__ = [
    "JobState",
    "JobStatus",
    "RunPaths",
    "Storage",
    "finite",
    "is_local",
    "job_run_id",
    "join",
    "local_path",
    "new_run_id",
    "normalise",
    "spark_uri",
]

"""The console script ``spark-dl``; ``jobs/*.py`` for spark-submit are the same code."""

from spark_dl.cli.main import main
from spark_dl.cli.run import run_job

__all__ = ["main", "run_job"]

"""Measure a model on labelled rows: ``spark-submit jobs/evaluate.py --config conf/local.yaml``.

The same as ``spark-dl evaluate``; ``python jobs/evaluate.py --help`` lists the arguments,
`spark_dl.cli.run` the exit codes.
"""

import sys

from spark_dl.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("evaluate"))

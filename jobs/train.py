"""Train a model on the shards: ``spark-submit jobs/train.py --config conf/local.yaml``.

The same as ``spark-dl train``; ``python jobs/train.py --help`` lists the arguments,
`spark_dl.cli.run` the exit codes.
"""

import sys

from spark_dl.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("train"))

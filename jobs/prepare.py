"""Write a table as TFRecord shards: ``spark-submit jobs/prepare.py --config conf/local.yaml``.

The same as ``spark-dl prepare``; ``python jobs/prepare.py --help`` lists the arguments,
`spark_dl.cli.run` the exit codes.
"""

import sys

from spark_dl.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("prepare"))

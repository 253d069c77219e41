"""Score a table and write the predictions: ``spark-submit jobs/infer.py --config conf/local.yaml``.

The same as ``spark-dl infer``; ``python jobs/infer.py --help`` lists the arguments,
`spark_dl.cli.run` the exit codes.
"""

import sys

from spark_dl.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("infer"))

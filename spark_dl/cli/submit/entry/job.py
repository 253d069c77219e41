"""What `spark-dl submit` hands to spark-submit: ``job.py train --config job.yaml``.

The file travels alone to where the driver runs, so it holds nothing; it has a folder of its own,
because Python puts a script's folder before everything that is installed.
"""

import sys

from spark_dl.cli import main

if __name__ == "__main__":
    sys.exit(main())

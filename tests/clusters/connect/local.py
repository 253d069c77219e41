"""The client's steps, with a server that this process starts: ``local.py FOLDER train,fail``."""

import logging
import sys
from pathlib import Path

# this folder is on the path of a script that lies in it
import client
from session import connect_session

from spark_dl.session import ship_code

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    folder, steps = sys.argv[1:]
    with connect_session("local-cluster[2,1,1024]", f"{folder}/warehouse") as spark:
        ship_code(spark, Path(__file__).with_name("client.py"))
        client.take(steps.split(","), spark, folder)

"""TensorBoard on runs whose storage is not mounted, by `spark-dl tensorboard`."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.request

from shells import INTERRUPTIBLE

DEADLINE_S = 240


def check_tensorboard(spark_dl, runs, run, environ):
    """Hold that TensorBoard shows a run whose events are mirrored.

    Args:
        spark_dl: the command.
        runs: folder of the runs.
        run: its name.
        environ: the command's variables.
    """
    words = ["tensorboard", run, "--runs", runs, "--port", "0", "--every-s", "1"]
    process = subprocess.Popen(
        [*INTERRUPTIBLE, *spark_dl, *words], env=environ, stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("1 runs in TensorBoard: ")
        url = re.search(r"http://\S+", line)[0]
        deadline = time.monotonic() + DEADLINE_S
        while not (tags := scalars(url)).get(f"{run}/train"):
            assert time.monotonic() < deadline, tags
            threading.Event().wait(0.2)
        assert "epoch/loss" in tags[f"{run}/train"]
    finally:
        process.terminate()
        code = process.wait(DEADLINE_S)
        process.stdout.close()
    assert code == 0


def scalars(url):
    """Return the names of the curves of each run."""
    tags = f"{url}data/plugin/scalars/tags"
    with urllib.request.urlopen(tags, timeout=DEADLINE_S) as answer:  # noqa: S310
        return json.load(answer)

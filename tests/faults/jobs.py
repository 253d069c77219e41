"""A run as a job of its own, with a driver that can be lost: `jobs/train.py` and its config."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from faults import model
from faults.conftest import AT, BATCH, EPOCHS, WORKERS, Caught, pids_at_gate, settings

from spark_dl.storage import RunPaths

TRAIN = Path(__file__).parents[2] / "jobs" / "train.py"
#: The module of the model, beside the config.
MODEL = "watched_model.py"


def write_job(folder, dataset, **cluster):
    """Write ``job.yaml`` and the model, which waits at its gate as those of `start` do."""
    gate = folder / "gate"
    gate.mkdir()
    shutil.copy(model.__file__, folder / MODEL)
    config = {
        "dataset": {"path": dataset.path, "seed": 7},
        "model": {"fn": "watched_model:watched", "params": {"folder": str(gate), "at": AT}},
        "cluster": {"num_workers": WORKERS, **cluster},
        "training": {
            "epochs": EPOCHS,
            "global_batch_size": BATCH,
            "seed": 3,
            **settings()["training"],
        },
        "tensorboard": {"enabled": False},
        "runs": str(folder / "runs"),
        "run_id": "run",
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))


def caught_at_gate(folder, process, log):
    """Wait until the workers of a job stand at the gate; return the run and their pids."""

    def check():
        assert process.poll() is None, log.read_text()[-4000:]

    gate = str(folder / "gate")
    pids = pids_at_gate(gate, check)
    paths = RunPaths(runs=str(folder / "runs"), run_id="run")
    return Caught(paths, gate, process), pids

"""What is read back from a run's directory."""

from __future__ import annotations

import json
import math

from spark_dl.runs import finished_run
from spark_dl.storage import JobState, JobStatus, RunPaths, Storage, finite


def test_a_run_that_diverged_is_read_back(tmp_path):
    paths = RunPaths(runs=str(tmp_path), run_id="run-1")
    status = JobStatus(job="train", id="run-1", status=JobState.RUNNING)
    status.succeeded({"loss": math.nan, "accuracy": 0.1}).write(paths.status)
    facts = {"time": 1.0, "step": 5, "split": "train", "scope": "epoch"}
    lines = [
        {**facts, "epoch": epoch, **finite({"loss": loss, "accuracy": 0.1})}
        for epoch, loss in enumerate([2.5, math.inf])
    ]
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    Storage(paths.root).write_atomic(paths.metrics, text)
    Storage(paths.root).make_folder(paths.model(1))

    run = finished_run(paths)
    assert run is not None
    assert math.isnan(run.metrics["loss"])
    assert run.metrics["accuracy"] == 0.1
    first, last = run.history["loss"]
    assert first == 2.5
    assert math.isnan(last)
    assert run.history["accuracy"] == [0.1, 0.1]

"""Tests that need a GPU: `pytest tests/gpu` on a machine that has one; skipped elsewhere."""

from __future__ import annotations

import glob
import subprocess
import sys

import pytest

_COUNT = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"


def _missing() -> str:
    """Return why there is no GPU to test with; empty where there is one."""
    if not glob.glob("/dev/nvidia[0-9]*"):
        return "this machine has no NVIDIA GPU"
    asked = [sys.executable, "-c", _COUNT]
    found = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=300)
    if found.stdout.strip().isdigit() and int(found.stdout):
        return ""
    return f"TensorFlow sees no GPU here: {(found.stdout + found.stderr)[-1000:]}"


@pytest.fixture(scope="session", autouse=True)
def gpu():
    """Skip where there is none."""
    if reason := _missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def gpu_spark(gpu, _use, tmp_path_factory):
    """One real executor of two cores and one GPU, which two tasks may share."""
    script = tmp_path_factory.mktemp("gpus") / "discover"
    script.write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["0"]}'\n""")
    script.chmod(0o755)
    settings = {
        "worker.resource.gpu.amount": "1",
        "worker.resource.gpu.discoveryScript": str(script),
        "executor.resource.gpu.amount": "1",
        "task.resource.gpu.amount": "0.5",
    }
    return _use("local-cluster[1,2,2048]", **settings)

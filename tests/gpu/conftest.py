"""Tests that need a GPU: `pytest tests/gpu` on a machine that has one; skipped elsewhere."""

from __future__ import annotations

import pytest

from spark_dl.cluster.probe import look


def _missing() -> str:
    """Return why there is no GPU to test with; empty where there is one."""
    facts = look({"packages": (), "timeout_s": 300})
    if not facts["gpu_devices"]:
        return "this machine has no NVIDIA GPU"
    seen = facts["tensorflow_gpus"]
    return "" if isinstance(seen, int) and seen else f"TensorFlow sees no GPU here: {seen}"


@pytest.fixture(scope="session", autouse=True)
def gpu():
    """Skip where there is none."""
    if reason := _missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def gpu_spark(gpu, _use, _gpus_of_script):
    """One real executor of two cores and one GPU, which two tasks may share."""
    settings = _gpus_of_script("0") | {"task.resource.gpu.amount": "0.5"}
    return _use("local-cluster[1,2,2048]", **settings)

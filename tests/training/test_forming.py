"""Ranks that cannot reach each other: TensorFlow would wait for ever, a run does not."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from spark_dl.errors import TrainingFailedError
from spark_dl.testing import run_ranks


def form_without_rank_1(timeout_s, context):
    from spark_dl.training.collective import form_collective
    from spark_dl.training.worker import _deadline

    if context.rank == 1:
        time.sleep(600)
    with _deadline(dataclasses.replace(context, start_timeout_s=timeout_s)):
        form_collective(context.rank, context.world_size, cores=1).barrier()
    return {}


def test_forming_the_cluster_has_a_deadline():
    with pytest.raises(
        TrainingFailedError,
        match=r"rank 0 .*TimeoutExpiredError: gave up after 4 s waiting for the workers' "
        r"TensorFlow servers to reach each other \(127\.0\.0\.1:\d+, 127\.0\.0\.1:\d+\)",
    ):
        run_ranks(form_without_rank_1, 4, world_size=2)


def sum_with_the_other(value, context):
    from spark_dl.training.collective import form_collective

    collective = form_collective(context.rank, context.world_size, cores=1)
    return {"sum": collective.sum_arrays([np.array([1.0 + context.rank])])[0].tolist()}


def test_a_proxy_in_the_environment_is_not_asked_for_neighbours(monkeypatch):
    """As many a company sets it for all its hosts; this one answers nobody."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run_ranks(sum_with_the_other, None, world_size=2) == [{"sum": [3.0]}] * 2

"""Ranks that cannot reach each other: TensorFlow would wait for ever, a run does not."""

from __future__ import annotations

import dataclasses
import time

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

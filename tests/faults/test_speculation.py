"""Spark speculates, and a rank takes long: no second copy of it starts."""

from __future__ import annotations

import os

import pytest
from clusters.loopback import loopback_cluster, told
from faults.processes import is_child

from spark_dl.testing import descendants

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def test_a_rank_that_takes_long_is_not_speculated(tmp_path):
    with loopback_cluster(tmp_path) as master:
        trained = told(master, tmp_path, "train")
        assert trained == {"ranks": ["0", "1"], "attempt": 1}
        assert not any(map(is_child, descendants(os.getpid())))

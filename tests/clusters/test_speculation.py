"""Speculation: a second attempt of a scoring task adds no row twice.

What it does to a training is tried among the faults (`tests/faults/test_speculation.py`).
"""

from __future__ import annotations

import pytest
from clusters.loopback import loopback_cluster, told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_second_attempt_adds_no_row_twice(tmp_path):
    with loopback_cluster(tmp_path) as master:
        scored = told(master, tmp_path, "score")
    assert scored["attempts"] == [0, 1], "there was no second attempt"
    assert scored["rows"] == [[i, 2.0 * i] for i in range(scored["count"])]
    assert scored["files_of_the_partition"] == 1

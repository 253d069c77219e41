"""What tests on one session share."""

from __future__ import annotations

import pytest


@pytest.fixture
def descriptions():
    """Give what a session's pages call its jobs; Connect has no such names."""

    def told(spark):
        jobs = spark._jsc.sc().statusStore().jobsList(None)
        found = [jobs.apply(n).description() for n in range(jobs.size())]
        return [text.get() for text in found if text.isDefined()]

    return told

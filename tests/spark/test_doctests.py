"""The examples in the docstrings of what needs a Spark session."""

from __future__ import annotations

import doctest
import importlib

import pytest

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("name", ["spark_dl.schema.derive"])
def test_examples_are_true(name, spark):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0

"""The examples in the docstrings of what needs neither Spark nor TensorFlow."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import spark_dl

PURE = ("errors", "versions", "config", "schema", "storage", "shards")
WITH_SPARK = {"spark_dl.schema.derive"}  # tests/spark/test_doctests.py


def _modules():
    for name in PURE:
        module = importlib.import_module(f"spark_dl.{name}")
        below = pkgutil.iter_modules(getattr(module, "__path__", []))
        names = {module.__name__, *(f"{module.__name__}.{found.name}" for found in below)}
        yield from sorted(names - WITH_SPARK)


@pytest.mark.parametrize("name", list(_modules()))
def test_examples_are_true(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_examples_are_found():
    assert doctest.testmod(importlib.import_module(f"{spark_dl.__name__}.versions")).attempted >= 2

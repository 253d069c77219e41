"""Clusters as people have them, started for the tests; each kind once for the whole session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clusters.environment import Environment, installed_environment
from clusters.hadoop import Hadoop

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts a cluster, whether or not it says so."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("matrix") is None:
            item.add_marker("clusters")


@pytest.fixture(scope="session")
def environment() -> Environment:
    """Give the wheel, installed in a venv of its own."""
    return installed_environment()


@pytest.fixture(scope="session")
def hadoop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hadoop]:
    """HDFS and YARN with one node: each takes minutes to unpack the environment."""
    with Hadoop(tmp_path_factory.mktemp("hadoop")) as started:
        yield started

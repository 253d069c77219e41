"""The doctor, asked about a config whose paths are all there."""

from __future__ import annotations

import functools

import doctors
import pytest


@pytest.fixture
def config(tmp_path):
    """A config whose paths are all there."""
    return doctors.write_config(tmp_path)


@pytest.fixture
def doctor(config):
    return functools.partial(doctors.ask, "--config", config)

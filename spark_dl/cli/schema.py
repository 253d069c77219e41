"""``spark-dl schema``: the YAML's JSON schema, for editors that complete and check it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from spark_dl.config import json_schema

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments: it has none."""


def run(_options: argparse.Namespace) -> int:
    """Print the schema."""
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
    return 0

"""A guide in ``docs/`` as scripts: its blocks ```` ```bash NAME ````, to be run as they stand.

Blocks of Python and YAML have names too (```` ```python NAME ````).
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from clusters.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What the pages say for hosts and folders of their readers: all that the tests put others for.
PLACES = {
    "connect.master": "spark://master:7077",
    "connect.server": "sc://server:15002",
    "connect.shared": "/shared/",
    "airflow.folder": "/opt/spark-dl/",
    "airflow.master": '"host": "yarn"',
    "databricks.workspace": "/Workspace/Users/me/",
    # brings Amazon's SDK in one jar of 600 MB; the tests have its parts on the class path
    "s3.packages": "--packages org.apache.hadoop:hadoop-aws:3.4.2",
    "s3.bucket": "s3a://bucket/",
    "s3.server": "https://s3.example.com",
}
#: What this checkout's own set-up exports, and a user's shell does not.
_OURS = ("PYTHONPATH", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "SPARK_LOCAL_IP", "VIRTUAL_ENV")


def blocks(document: str, places: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what stands in a guide's blocks, by their names.

    Args:
        document: the guide's file.
        places: what to put for `PLACES`, by their keys.
    """
    text = (ROOT / "docs" / document).read_text()
    for name, ours in (places or {}).items():
        assert PLACES[name] in text, f"{document} does not name {PLACES[name]}"
        text = text.replace(PLACES[name], ours)
    return dict(_BLOCK.findall(text))


def user_environ(path: list[str], extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a user's shell."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
    return {**inherited, "PATH": os.pathsep.join([*path, inherited["PATH"]]), **extra}


def shell(
    commands: str, *, folder: Path, environ: Mapping[str, str], timeout_s: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run commands as a user would type them; the first that fails ends them."""
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )

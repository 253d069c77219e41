"""A guide in ``docs/`` as scripts: its blocks ```` ```bash NAME ````, to be run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from clusters.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BLOCK = re.compile(r"^```bash (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What this checkout's own set-up exports, and a user's shell does not.
_OURS = ("PYTHONPATH", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "SPARK_LOCAL_IP", "VIRTUAL_ENV")


def blocks(document: str) -> dict[str, str]:
    """Return the commands of a guide by the name of their block."""
    return dict(_BLOCK.findall((ROOT / "docs" / document).read_text()))


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

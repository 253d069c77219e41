"""What a client of Spark Connect needs beside pyspark, in a folder for its PYTHONPATH."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from clusters.environment import ROOT, cache_lock, digest, made, run

if TYPE_CHECKING:
    from pathlib import Path

#: What the extra `connect` adds to the set-up's packages.
NAMES = ("grpcio-status", "googleapis-common-protos", "zstandard")


def connect_packages() -> Path:
    """Install them where the cache has them not and return the folder."""
    exact = (ROOT / "constraints.txt").read_text().splitlines()
    packages = [line for line in exact if line.partition("==")[0] in NAMES]
    with cache_lock("connect") as folder:
        pins = digest(" ".join(packages).encode(), sys.version.encode())
        target = folder / "packages"
        if not made(folder / "pins", pins):
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps")
            run(*pip, "--target", str(target), *packages)
            (folder / "pins").write_text(pins)
        return target

"""What a client of Spark Connect needs beside pyspark, in a folder for its PYTHONPATH."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from clusters.environment import cache_lock, digest, made, run

if TYPE_CHECKING:
    from pathlib import Path

#: With grpcio and protobuf as constraints.txt has them.
PACKAGES = ("grpcio-status==1.85.1", "googleapis-common-protos==1.76.0", "zstandard==0.25.0")


def connect_packages() -> Path:
    """Install them where the cache has them not and return the folder."""
    with cache_lock("connect") as folder:
        pins = digest(" ".join(PACKAGES).encode(), sys.version.encode())
        target = folder / "packages"
        if not made(folder / "pins", pins):
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps")
            run(*pip, "--target", str(target), *PACKAGES)
            (folder / "pins").write_text(pins)
        return target

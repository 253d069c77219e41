"""What clients of Spark Connect are made of."""

from __future__ import annotations

import sys
import sysconfig
from typing import TYPE_CHECKING

from clusters.environment import ROOT, build_wheel, cache_lock, digest, made, python_above, run

if TYPE_CHECKING:
    from pathlib import Path

#: What the extra `connect` adds to the set-up's packages.
NAMES = ("grpcio-status", "googleapis-common-protos", "zstandard")
#: As docs/connect.md has it.
CLIENT = "pyspark-client>=4.1,<4.2"


def connect_packages() -> Path:
    """Install what the set-up's pyspark lacks and return the folder, for a PYTHONPATH."""
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


def servers_python(folder: Path) -> str:
    """Give a Python that has the set-up's packages and not ours, which sessions bring along."""
    # as a mere folder of modules: the line that makes this checkout importable is not read
    return python_above(folder / "venv", sysconfig.get_path("purelib") + "\n")


def connect_client() -> Path:
    """Give the Python of a client's environment: the wheel and no Spark, no Java, no TensorFlow."""
    with cache_lock("connect-client") as folder:
        wheel = build_wheel(folder)
        python = folder / "venv" / "bin" / "python"
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        constraints = ROOT / "constraints.txt"
        pins = digest(constraints.read_bytes(), CLIENT.encode(), sys.version.encode())
        if not made(folder / "pins", pins):
            run(sys.executable, "-m", "venv", "--clear", str(folder / "venv"))
            run(*pip, "-c", str(constraints), f"{wheel}[tensorboard]", CLIENT)
            (folder / "pins").write_text(pins)
        run(*pip, "--no-deps", "--force-reinstall", str(wheel))
        return python

"""What a user has on an edge node: the wheel in a venv of its own, and that venv as an archive.

The venv holds no pyspark: on YARN driver and executors get Spark's own Python files. Both are
cached below ``build/clusters`` (or CLUSTERS_CACHE) and made anew when their inputs change.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("CLUSTERS_CACHE") or ROOT / "build" / "clusters")
#: What the guides install of ours.
INSTALLED = "spark-dl[tensorflow,tfos,tensorboard]"
#: most of the environment's files, and no program reads them; as in docs/yarn.md
UNREAD = ("*/tensorflow/include/*", "*/tests/*", "*/site-packages/pip/*")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An installed wheel.

    Attributes:
        python: the interpreter of the venv.
        wheel: what was installed.
    """

    python: str
    wheel: str


@contextmanager
def cache_lock(name: str) -> Iterator[Path]:
    """Give one process at a time a folder of the cache."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def made(stamp: Path, digest: str) -> bool:
    return stamp.exists() and stamp.read_text() == digest


def run(*command: str | Path, timeout_s: float = 1500, **options) -> str:
    """Run a command that must succeed and return what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=timeout_s, **options
    )
    said = f"{done.stdout[-12000:]}{done.stderr[-8000:]}"
    assert done.returncode == 0, f"{' '.join(words)}: {said}"
    return done.stdout


def python_above(home: Path, lines: str) -> str:
    """Give the Python of a venv at `home` that has no packages but those of its ``.pth`` file."""
    run(sys.executable, "-m", "venv", "--without-pip", str(home))
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "below.pth").write_text(lines)
    return str(home / "bin" / "python")


def beside_spark(environment: Environment, home: Path) -> tuple[str, dict[str, str]]:
    """Give a Python with the installed wheel and the set-up's Spark, as on a user's own machine.

    This checkout cannot be imported there: of the set-up's packages no ``.pth`` file is read.

    Args:
        environment: where the wheel is installed.
        home: an empty folder.

    Returns:
        The interpreter, and the variables that it needs: Delta's jars are not in a wheel.
    """
    (packages,) = Path(environment.python).parents[1].glob("lib/python*/site-packages")
    python = python_above(home / "venv", f"{packages}\n{sysconfig.get_path('purelib')}\n")
    jars = home / "jars"
    jars.mkdir()
    for jar in (ROOT / "build" / "jars").glob("delta-*.jar"):
        (jars / jar.name).symlink_to(jar)
    variables = {"SPARK_DL_JARS_DIR": str(jars), "PYSPARK_PYTHON": python}
    return python, {**os.environ, **variables}


def wait_for_port(
    process: subprocess.Popen[bytes], host: str, port: int, log: Path, start_s: float
) -> None:
    """Wait until a process that was just started takes connections."""
    deadline = time.monotonic() + start_s
    while True:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            told = f"nothing listens on port {port} after {start_s:g} s: {log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, told
            time.sleep(0.1)
        else:
            return


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout, with the connector's jar."""
    wheels = folder / "wheel"
    for old in wheels.glob("*.whl"):
        old.unlink()
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", str(wheels), str(ROOT)),
    )
    (wheel,) = wheels.glob("*.whl")
    return wheel


def installed_environment() -> Environment:
    """Install the wheel with TensorFlow into a venv; what is cached is reused."""
    with cache_lock("environment") as folder:
        wheel = build_wheel(folder)
        python = folder / "venv" / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        pins = digest(constraints.read_bytes(), sys.version.encode())
        content = digest(pins.encode(), wheel.read_bytes())
        if not made(folder / "pins", pins):
            run(sys.executable, "-m", "venv", "--clear", str(folder / "venv"))
            run(
                *(str(python), "-m", "pip", "install", "--quiet", "-c", str(constraints)),
                *(INSTALLED.replace("spark-dl", str(wheel)),),
            )
            (folder / "pins").write_text(pins)
        if not made(folder / "content", content):
            run(
                *(str(python), "-m", "pip", "install", "--quiet"),
                *("--no-deps", "--force-reinstall", str(wheel)),
            )
            (folder / "content").write_text(content)
        return Environment(python=str(python), wheel=str(wheel))


def packed(environment: Environment) -> Path:
    """Return an environment's venv as an archive for ``--archives``; a cached one is reused."""
    with cache_lock("environment") as folder:
        archive = folder / "environment.tar"
        content = digest((folder / "content").read_bytes(), "".join(UNREAD).encode())
        if not made(folder / "packed", content):
            # a plain tar: TensorFlow takes a minute to compress and nothing is sent far here
            run(
                *(str(Path(sys.executable).with_name("venv-pack")), "--quiet", "--force"),
                *("--prefix", Path(environment.python).parents[1], "--output", archive),
                *(word for pattern in UNREAD for word in ("--exclude", pattern)),
            )
            (folder / "packed").write_text(content)
        return archive

"""TensorBoard in a browser through the real jupyter-server-proxy, with the prefix of a hub."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser.board import sees_curves, write_curves
from browser.conftest import page  # noqa: F401 (a fixture)
from clusters.environment import cache_lock, digest, made, run, wait_for_port
from clusters.hadoop import HOST, Ports

from spark_dl.monitoring import TensorBoard

CONSTRAINTS = Path(__file__).parent / "jupyter" / "constraints.txt"
BASE = "/user/me/"
START_S = 120.0
STOP_S = 60.0


def jupyter() -> Path:
    """Install Jupyter's server and its proxy where the cache has them not; return the program."""
    with cache_lock("jupyter") as folder:
        programs = folder / "venv" / "bin"
        pins = digest(CONSTRAINTS.read_bytes(), sys.version.encode())
        if not made(folder / "pins", pins):
            run(sys.executable, "-m", "venv", "--clear", folder / "venv")
            run(programs / "pip", "install", "--quiet", "--no-deps", "-r", CONSTRAINTS)
            (folder / "pins").write_text(pins)
        return programs / "jupyter"


@contextlib.contextmanager
def server(folder, token):
    """A server of its own, below a prefix as a hub gives it; gives its address."""
    ports = Ports()
    port = ports.take()
    # JupyterHub passes the token so, too: nobody sees it among the processes
    environ = {**os.environ, "HOME": str(folder), "JUPYTER_TOKEN": token}
    log = folder / "jupyter.log"
    words = ["server", "--no-browser", "--allow-root", f"--ServerApp.base_url={BASE}"]
    where = [f"--ServerApp.ip={HOST}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    with (
        open(log, "wb") as output,
        subprocess.Popen(
            [jupyter(), *words, *where], env=environ, cwd=folder, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_for_port(process, HOST, port, log, START_S)
            ports.close()
            yield f"http://{HOST}:{port}{BASE}"
        finally:
            ports.close()
            process.terminate()
            process.wait(STOP_S)


@pytest.mark.parametrize("absolute", [False, True])
def test_curves_behind_jupyters_own_proxy(page, tmp_path, absolute):  # noqa: F811
    write_curves(tmp_path / "events")
    kind = "proxy/absolute" if absolute else "proxy"
    prefix = f"{BASE}{kind}/{{port}}" if absolute else None
    token = secrets.token_hex(16)
    with (
        server(tmp_path, token) as hub,
        TensorBoard(tmp_path / "events", path_prefix=prefix) as board,
    ):
        address = f"{hub}{kind}/{urlsplit(board.url).port}/"
        query, picture = f"token={token}&", f"tensorboard-jupyter-{kind.replace('/', '-')}"
        sees_curves(page, address, query=query, behind=True, picture=picture)

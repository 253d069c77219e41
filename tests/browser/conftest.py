"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "build" / "artifacts"
DEADLINE_S = 120
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1600",
    "--remote-debugging-port=0",
)


class Page:
    """One page: opens addresses, runs scripts, remembers what the console complained about."""

    def __init__(self, socket):
        self._socket = socket
        self._sent = 0
        self.complaints = []

    def call(self, method, **params):
        """Send a command and return its result; events that arrive meanwhile are noted."""
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._sent:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, event):
        params = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "assert",
        ):
            self.complaints.append([arg.get("value", arg) for arg in params["args"]])
        elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"])

    def open(self, address):
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)

    def run(self, script):
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, look, what):
        """Wait until a script, or a function, gives something true; return that."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            value = self.run(look) if isinstance(look, str) else look()
            if value:
                return value
            # the page paints between two looks
            self.run("new Promise(done => setTimeout(done, 100))")
        pytest.fail(f"no {what} within {DEADLINE_S} s; the page says: {self.run(TEXT)[:2000]}")
        return None

    def screenshot(self, name=None, clip=None):
        """Return a picture of the page as PNG; with a name it is kept as an artefact."""
        area = {"clip": {**clip, "scale": 1}} if clip else {"captureBeyondViewport": True}
        raw = base64.b64decode(self.call("Page.captureScreenshot", format="png", **area)["data"])
        if name:
            ARTIFACTS.mkdir(parents=True, exist_ok=True)
            (ARTIFACTS / name).write_bytes(raw)
        return raw


TEXT = "document.body ? document.body.innerText : ''"


@pytest.fixture
def page(tmp_path):
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    profile = tmp_path / "profile"
    process = subprocess.Popen(
        [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        base = _devtools(process)
        # Chromium's own address, just read from its output
        with urllib.request.urlopen(f"{base}/json", timeout=DEADLINE_S) as answer:  # noqa: S310
            targets = json.load(answer)
        address = next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
        socket = websocket.create_connection(address, timeout=DEADLINE_S, suppress_origin=True)
        with contextlib.closing(socket):
            yield Page(socket)
    finally:
        # its own group: the renderers end with it
        os.killpg(process.pid, 9)
        process.wait()
        process.stderr.close()


def _devtools(process):
    """Return the address that Chromium says it listens on."""
    seen = []
    for raw in process.stderr:
        line = raw.decode(errors="replace").strip()
        seen.append(line)
        if line.startswith("DevTools listening on ws://"):
            return "http://" + line.removeprefix("DevTools listening on ws://").partition("/")[0]
    pytest.fail("Chromium did not start:\n" + "\n".join(seen[-20:]))
    return None

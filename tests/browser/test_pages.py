"""The demo's report and TensorBoard, as a browser shows them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser.board import sees_curves, write_curves

from spark_dl.cli.runs.catalogue import Metric
from spark_dl.cli.runs.compare import Compared, compare_page
from spark_dl.monitoring import TensorBoard

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("script", ["console.error('broken')", "setTimeout(() => broken(), 0)"])
def test_what_the_console_complains_of_is_heard(page, script):
    page.open("about:blank")
    page.run(script)
    page.wait_for(lambda: page.complaints, "complaint")
    assert "broken" in str(page.complaints)


def test_the_report_shows_its_curves_without_a_complaint(page, report, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    html = report.render(
        report.ReportData(
            history={
                "loss": [2.0, 1.0, 0.5],
                "val_loss": [1.9, 1.1, 0.7],
                "accuracy": [0.4, 0.7, 0.9],
                "val_accuracy": [0.5, 0.6, 0.8],
            },
            labels=labels,
            predictions=np.where(np.arange(40) < 3, 9 - labels, labels),
            images=rng.random((40, 8, 8)),
            tiles={"test accuracy": "92.5%"},
            facts={"run": "<b>run</b> & more"},
        )
    )
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    page.open(path.as_uri())
    page.wait_for("document.readyState === 'complete'", "report")
    # each of the four curves is drawn, with the extent of a line and in a colour
    for curve in ("curves-loss", "curves-val_loss", "curves-accuracy", "curves-val_accuracy"):
        box = page.run(
            f"""(() => {{
              const path = document.querySelector('#{curve} path');
              if (!path) return null;
              const box = path.getBoundingClientRect();
              const style = getComputedStyle(path);
              return [box.width, box.height, style.stroke, style.visibility];
            }})()"""
        )
        assert box is not None, curve
        width, height, stroke, visibility = box
        assert width > 100, curve
        assert height > 50, curve
        assert stroke not in ("none", "rgb(255, 255, 255)"), curve
        assert visibility == "visible"
    assert page.run("document.querySelectorAll('svg[role=img][aria-label]').length") == 3
    twice = "[...document.querySelectorAll('[id]')].map(e => e.id)"
    assert page.run(f"(ids => ids.length - new Set(ids).size)({twice})") == 0
    assert page.run("performance.getEntriesByType('resource').map(e => e.name)") in ([], ["data:,"])
    assert "<b>run</b> & more" in page.run("document.body.innerText")  # text, not markup
    page.screenshot("report.png")
    assert page.complaints == []


@contextlib.contextmanager
def _proxy(prefix, mode):
    """A proxy in a process of its own; gives its address, with the prefix."""
    script = Path(__file__).parents[1] / "reverse_proxy.py"
    command = [sys.executable, script, prefix, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


PROXIES = {
    "none": None,
    "databricks": ("/driver-proxy/o/42/1125-abc", "strip"),
    "jupyter-absolute": ("/user/me/proxy/absolute", "keep"),
}


@pytest.mark.parametrize("proxy", PROXIES)
def test_tensorboard_shows_a_curve_without_a_complaint(page, tmp_path, proxy):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    write_curves(tmp_path)
    prefix, mode = PROXIES[proxy] or ("", "strip")
    own = f"{prefix}/{{port}}" if mode == "keep" else None
    with contextlib.ExitStack() as stack:
        board = stack.enter_context(TensorBoard(tmp_path, path_prefix=own))
        address = board.url
        if proxy != "none":
            behind = stack.enter_context(_proxy(prefix, mode))
            address = f"{behind}/{urlsplit(board.url).port}/"
        sees_curves(page, address, behind=proxy != "none", picture=f"tensorboard-{proxy}")


def test_compared_runs_are_shown_in_light_and_dark_without_a_complaint(page, tmp_path):
    runs = [
        Compared(
            run_id=f"train-{n}",
            state="succeeded",
            took=f"{n + 2} min",
            curves={
                name: Metric(
                    name=name,
                    epochs=list(range(1, 13)),
                    values=[start * (0.6 + 0.1 * n) ** epoch + floor for epoch in range(12)],
                )
                for name, start, floor in (("loss", 2.0, 0.1), ("val_loss", 2.1, 0.2 + n / 20))
            },
            settings={"model.params.learning_rate": 10.0**-n, "training.seed": 1},
        )
        for n in range(3)
    ]
    path = tmp_path / "compare.html"
    path.write_text(compare_page(runs), encoding="utf-8")
    page.open(path.as_uri())
    drawn = "document.readyState === 'complete' && document.querySelectorAll('.curve').length"
    page.wait_for(drawn, "page")
    grounds = []
    for scheme in ("light", "dark"):
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", features=media)
        strokes = page.run(
            "[...document.querySelectorAll('.curve path')].map(p => getComputedStyle(p).stroke)"
        )
        assert len(strokes) == 6
        assert len(set(strokes)) == 3  # one colour a run, in both charts
        grounds.append(page.run("getComputedStyle(document.body).backgroundColor"))
        page.screenshot(f"compare-{scheme}.png")
    assert grounds[0] != grounds[1]
    boxes = page.run(
        "[...document.querySelectorAll('figure')].map(f => f.getBoundingClientRect().y)"
    )
    assert boxes[0] == boxes[1]  # side by side
    page.run("document.querySelector('nav button').click()")
    hidden = (
        "[...document.querySelectorAll('.curve')].filter(c => !c.getClientRects().length).length"
    )
    assert page.run(hidden) == 2
    assert page.run("performance.getEntriesByType('resource').map(e => e.name)") in ([], ["data:,"])
    assert page.complaints == []

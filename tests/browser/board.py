"""TensorBoard as a browser shows it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from event_files import write_events

#: The colours that TensorBoard gives to the first two runs.
CURVES = {"train": (66, 80, 102), "validation": (18, 181, 203)}
CHART = """(() => {
  let found = null;
  const look = root => {
    for (const element of root.querySelectorAll('*')) {
      if (element.shadowRoot) look(element.shadowRoot);
      if (element.tagName === 'LINE-CHART') found = element.getBoundingClientRect();
    }
  };
  look(document);
  return found && {x: found.x, y: found.y, width: found.width, height: found.height};
})()"""


def write_curves(folder):
    """Write the events that the page is to show."""
    train, validation = [2.0, 1.2, 0.7, 0.5], [1.9, 1.3, 0.9, 0.8]
    write_events({folder / "train": train, folder / "validation": validation})


def sees_curves(page, address, *, query="", behind, picture):
    """Hold that the page shows both curves and complains of nothing.

    Args:
        page: the browser's.
        address: TensorBoard's, with the slash at its end.
        query: what the address needs besides.
        behind: whether a proxy is between.
        picture: name of the artefact.
    """
    page.open(f"{address}?{query}darkMode=false#timeseries")
    chart = page.wait_for(CHART, "chart")

    def drawn():
        image = page.screenshot(clip=chart)
        return min(_pixels(image, colour) for colour in CURVES.values()) > 100

    page.wait_for(drawn, "two curves in the chart")
    text = page.run("document.body.innerText")
    assert "loss" in text
    assert "validation" in text
    page.screenshot(f"{picture}.png")
    # behind a prefix TensorBoard's own style sheet misses its fonts, and the browser takes others
    missed = [complaint.get("url", complaint) for complaint in page.complaints]
    assert missed == [url for url in missed if behind and "/font-roboto/" in url]


def _pixels(png, colour):
    """Count the pixels of about this colour; scripts cannot see into TensorBoard's canvas."""
    image = pytest.importorskip("matplotlib.image", reason="the extra `demo` is not installed")
    found = image.imread(io.BytesIO(png), format="png")[..., :3] * 255
    return int((np.abs(found - colour).max(axis=-1) < 16).sum())

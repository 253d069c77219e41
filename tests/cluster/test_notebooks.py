"""The notebooks, cell by cell, on a classic session."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_dl.testing import run_notebook

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.slow]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_the_quick_start(cluster_spark, tmp_path):
    done = run_notebook(
        NOTEBOOKS / "quick_start.py", cluster_spark, {"folder": str(tmp_path), "epochs": "3"}
    )
    visits, rows, history, scored = done.shown
    assert len(visits) == 1000
    assert sum(row["rows"] for row in rows) == 4000
    assert {row["metric"] for row in history} == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert {row["epoch"] for row in history} == {1, 2, 3}
    assert set(scored[0].asDict()) == {"visit", "bought", "prediction"}
    assert (tmp_path / "runs" / done.exit_value / "model" / "1" / "model.keras").exists()
    assert done.installed

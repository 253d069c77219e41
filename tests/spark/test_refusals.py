"""What a training refuses before it starts a worker."""

from __future__ import annotations

import json

import pytest

import spark_dl
from spark_dl.errors import ConfigError


def test_where_all_traffic_must_be_encrypted_nothing_starts(spark, tmp_path):
    frame = spark.range(20).selectExpr("cast(id as float) as x", "cast(id as float) as y")
    dataset = spark_dl.prepare(
        frame, features=["x"], label="y", path=tmp_path / "dataset", splits={"train": 1.0}
    )
    with pytest.raises(ConfigError, match="workers exchange gradients and weights in clear"):
        spark_dl.train(
            "nowhere:model",
            dataset,
            runs=tmp_path / "runs",
            run_id="open",
            config={"cluster": {"require_encryption": True}},
        )
    status = json.loads((tmp_path / "runs" / "open" / "status.json").read_text())
    assert status["status"] == "failed"
    assert "exchange gradients and weights in clear" in status["error"]["message"]

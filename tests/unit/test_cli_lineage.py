"""`spark-dl lineage` from a table's log and a run directory."""

from __future__ import annotations

import json

import pytest

from spark_dl.cli import main
from spark_dl.schema import FeatureSpec, SpecEntry
from spark_dl.shards import Manifest, Source
from spark_dl.storage import JobState, JobStatus, RunPaths


@pytest.fixture
def table(tmp_path):
    """A log of four commits, two of them scorings; and the run that made the model."""
    paths = RunPaths(runs=str(tmp_path / "runs"), run_id="r1")
    JobStatus(
        job="train", id="r1", status=JobState.SUCCEEDED, metrics={"val_loss": 0.25, "auc": None}
    ).write(paths.status)
    manifest = Manifest(
        spec=FeatureSpec(entries=(SpecEntry(name="a", column="a", dtype="float32"),)),
        shards=(),
        totals={"train": 0},
        splits={"train": 1.0},
        seed=0,
        source=Source(table="/tables/digits", format="delta", version=4, where="ok"),
        fingerprint="sha256:feed",
        spark_dl_version="0",
    )
    (tmp_path / "runs" / "r1" / "manifest.json").write_text(manifest.model_dump_json())

    def info(**values):
        return {"commitInfo": {"timestamp": 0, "operation": "WRITE", **values}}

    def scoring(name, model_path):
        facts = {
            "model_path": model_path,
            "model_run_id": "r1",
            "model_version": "1",
            "model_checksum": "sha256:0123456789abcdef",
            "source": "/tables/new",
            "source_version": "7",
            "dataset_fingerprint": "sha256:feed",
            "version": "0.1.0",
        }
        note = {"scoring_id": name, "properties": {f"spark_dl.{k}": v for k, v in facts.items()}}
        return info(userMetadata=json.dumps(note), operationMetrics={"numOutputRows": "12"})

    log = tmp_path / "scored" / "_delta_log"
    log.mkdir(parents=True)
    commits = [
        info(),
        scoring("score-1", paths.model(1)),
        info(userMetadata="not ours"),
        scoring("score-2", "/elsewhere/model"),
    ]
    for version, commit in enumerate(commits):
        lines = [json.dumps(commit), json.dumps({"add": {"path": "x"}})]
        (log / f"{version:020}.json").write_text("\n".join(lines))
    return tmp_path / "scored"


def test_the_chain_is_told_from_table_to_predictions(table, capsys):
    assert main(["lineage", str(table), "--scoring-id", "score-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "table",
        "dataset",
        "run",
        "model",
        "scored",
        "predictions",
    ]
    assert lines[0].split(maxsplit=1)[1] == "/tables/digits version 4 where ok"
    assert "sha256:feed (train 0)" in lines[1]
    assert "r1 (succeeded, val_loss 0.25)" in lines[2]
    assert "runs/r1/model/1 version 1 sha256:0123456789ab" in lines[3]
    assert lines[4].endswith("/tables/new version 7")
    assert "scored version 1, 12 rows, scoring score-1, 1970-01-01" in lines[5]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"init_from": "/runs/r0/model/1/model.keras"}', "/runs/r0/model/1/model.keras"),
        ('{"init_from": ""}', ""),
        ("[]", ""),
        ("{", ""),
    ],
)
def test_the_weights_that_a_run_began_with_are_told(table, tmp_path, capsys, text, told):
    model = tmp_path / "runs" / "r1" / "model" / "1"
    model.mkdir(parents=True)
    (model / "model.json").write_text(text)
    assert main(["lineage", str(table), "--scoring-id", "score-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "init_from" in line] == [f"  init_from  {told}"] * bool(told)
    assert [line.split()[0] for line in lines][-4:] == ["run", "model", "scored", "predictions"]
    assert main(["lineage", str(table), "--scoring-id", "score-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["init_from"] == told


def test_every_scoring_newest_first_as_json(table, capsys):
    assert main(["lineage", str(table), "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["predictions"]["scoring_id"] == "score-2"
    assert first["run"] == {"run_id": "r1"}  # its model was copied elsewhere
    assert first["dataset"] == {"fingerprint": "sha256:feed"}
    assert second["dataset"]["version"] == 4
    assert second["run"]["metrics"] == {"val_loss": 0.25, "auc": None}


def test_tables_that_say_nothing(table, tmp_path, capsys):
    assert main(["lineage", str(tmp_path / "runs")]) == 2
    assert "is no Delta table, and only those keep who wrote them" in capsys.readouterr().err
    assert main(["lineage", str(table), "--scoring-id", "x"]) == 2
    assert "(scorings: score-2, score-1)" in capsys.readouterr().err
    for name in (1, 3):
        (table / "_delta_log" / f"{name:020}.json").unlink()
    assert main(["lineage", str(table)]) == 2
    assert "none of its 2 commits is a scoring" in capsys.readouterr().err

"""`spark-dl runs`: what it reads from run directories, shows, follows, stops and removes."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime, timedelta

import pytest

from spark_dl.cli import main
from spark_dl.cli.runs.catalogue import SILENT_AFTER, find, read_all, read_metrics
from spark_dl.cli.runs.chart import ticks
from spark_dl.cli.runs.clean import CleanRule, to_remove
from spark_dl.cli.runs.compare import compare_page, load
from spark_dl.errors import CancelledError, ConfigError, StorageError
from spark_dl.pipeline.presence import Presence
from spark_dl.storage import JobState, JobStatus, RunPaths

NOW = datetime.now(UTC)


def ago(**length):
    return (datetime.now(UTC) - timedelta(**length)).isoformat(timespec="milliseconds")


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def put(runs, run_id, state, *, started=None, ended=None, heard=None, job="train", **more):
    """Write a run directory as a driver leaves it."""
    paths = RunPaths(runs=str(runs), run_id=run_id)
    JobStatus(
        job=job, id=run_id, status=state, started=started or ago(minutes=5), ended=ended, **more
    ).write(paths.status)
    if heard is not None:
        (runs / run_id / "heartbeat.json").write_text(json.dumps({"time": heard}))
    return paths


def put_metrics(paths, losses, *, split="train"):
    with open(paths.metrics, "a", encoding="utf-8") as file:
        for epoch, loss in enumerate(losses):
            record = {"time": 1.0, "epoch": epoch, "step": 4, "split": split, "scope": "epoch"}
            file.write(json.dumps({**record, "loss": loss}) + "\n")


def succeeded(runs, run_id, losses, *, rate=0.1, **age):
    ended = ago(**(age or {"minutes": 1}))
    metrics = {"loss": losses[-1]}
    paths = put(runs, run_id, JobState.SUCCEEDED, started=ended, ended=ended, metrics=metrics)
    put_metrics(paths, losses)
    put_metrics(
        paths, [None if loss is None else loss + 0.1 for loss in losses], split="validation"
    )
    with open(paths.job, "w", encoding="utf-8") as file:
        file.write(f"training: {{epochs: 3, seed: 1}}\nmodel: {{params: {{rate: {rate}}}}}\n")
    return paths


def output(capsys, *words, code=0):
    assert main([str(word) for word in words]) == code
    return capsys.readouterr().out


def test_show_tells_what_a_run_has_cost_and_where_its_tensorboard_is_while_it_runs(runs, capsys):
    where = "http://127.0.0.1:6006/ after: ssh -N -L 6006:127.0.0.1:6006 alice@node7"
    put(runs, "r1", JobState.RUNNING, heard=ago(seconds=1), tensorboard=where)
    assert where in output(capsys, "runs", "show", "r1", "--runs", runs)
    cost = {"core_seconds": 81.5}
    put(runs, "r1", JobState.SUCCEEDED, ended=ago(), tensorboard=where, cost=cost)
    shown = output(capsys, "runs", "show", "r1", "--runs", runs)
    assert where not in shown
    assert re.search(r"cost core_seconds +81\.5", shown)


def test_list_shows_states_and_calls_a_silent_run_silent(runs, capsys):
    put(runs, "alive", JobState.RUNNING, heard=ago(seconds=5), attempt=2)
    put(runs, "gone", JobState.RUNNING, heard=ago(hours=3))
    succeeded(runs, "done", [2.0, 1.0])
    (runs / "not a run").mkdir()
    (runs / "other").mkdir()
    lines = output(capsys, "runs", "list", "--runs", runs).splitlines()
    cells = {line.split()[0]: line for line in lines[1:4]}
    assert set(cells) == {"alive", "gone", "done"}
    assert "running  " in cells["alive"]
    assert "running, silent" in cells["gone"]
    assert "loss 1" in cells["done"]
    assert lines[-1] == "gone: its driver has given no sign of life for 3 h"


def test_list_as_json_is_one_object_a_line(runs, capsys):
    put(runs, "gone", JobState.RUNNING, heard=ago(hours=3))
    put(runs, "table", JobState.SUCCEEDED, job="prepare", ended=ago(minutes=1))
    (line,) = output(
        capsys, "runs", "list", "--runs", runs, "--json", "--job", "train"
    ).splitlines()
    facts = json.loads(line)
    assert (facts["id"], facts["status"], facts["silent"]) == ("gone", "running", True)


def test_show_tells_settings_epochs_and_the_error(runs, capsys):
    paths = succeeded(runs, "r1", [2.0, None, 0.5])
    error = {"class": "TrainingFailedError", "message": "boom on rank 1", "retryable": True}
    put(runs, "r1", JobState.FAILED, ended=ago(minutes=1), error=error)
    text = output(capsys, "runs", "show", "r1", "--runs", runs)
    assert "model.params.rate" in text
    assert "boom on rank 1" in text
    assert "trying again may help" in text
    assert text.splitlines()[-2].split() == ["2", "nan", "nan"]
    shown = json.loads(output(capsys, "runs", "show", "latest", "--runs", runs, "--json"))
    assert shown["history"]["loss"] == [2.0, None, 0.5]
    assert shown["path"] == paths.root


def test_an_unknown_run_gets_a_hint(runs, capsys):
    put(runs, "train-1", JobState.RUNNING)
    assert main(["runs", "show", "trian-1", "--runs", str(runs)]) == 2
    assert "did you mean 'train-1'?" in capsys.readouterr().err


def test_compare_prints_results_and_only_settings_that_differ(runs, capsys, tmp_path):
    succeeded(runs, "slow", [2.0, 1.5], rate=0.01)
    succeeded(runs, "fast", [2.0, 0.5, 0.7], rate=0.1)
    page = tmp_path / "page.html"
    text = output(capsys, "runs", "compare", "slow", "fast", "--runs", runs, "--html", page)
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines()[1:-1])
    assert rows["model.params.rate"].split() == ["0.01", "0.1"]
    assert "training.seed" not in text
    assert rows["lowest loss"].endswith("0.5 (epoch 2)")
    html = page.read_text(encoding="utf-8")
    assert html.count('class="curve') == 4
    assert "http" not in html.replace("http-equiv", "")


def test_names_are_text_in_the_page(runs):
    paths = succeeded(runs, "r", [1.0, 0.5])
    with open(paths.job, "w", encoding="utf-8") as file:
        file.write("label: <script>alert(1)</script>\n")
    succeeded(runs, "s", [1.0, 0.5])
    html = compare_page(load(find(str(runs), ["r", "s"]), now=NOW))
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


@pytest.mark.parametrize(
    ("span", "expected"),
    [((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]), ((-1, 1), [-1, -0.5, 0, 0.5, 1]), ((0.1, 0.11), 5)],
)
def test_ticks_are_round_and_inside(span, expected):
    found = ticks(*span)
    assert found == expected or len(found) >= expected
    assert all(span[0] <= tick <= span[1] for tick in found)


def test_tail_follows_until_the_run_ends(runs, capsys):
    paths = put(runs, "r", JobState.RUNNING, heard=ago(seconds=1))
    put_metrics(paths, [2.0])

    def go_on():
        put_metrics(paths, [None], split="validation")
        status = JobStatus.read(paths.status)
        status.failed(CancelledError("asked"), cancelled=True).write(paths.status)

    later = threading.Timer(0.7, go_on)
    later.start()
    lines = output(capsys, "runs", "tail", "r", "--runs", runs, code=2).splitlines()
    later.join()
    assert lines[0] == "r: running, attempt 1"
    assert lines[1:3] == ["epoch 1 train: loss 2", "epoch 1 validation: loss nan"]
    assert lines[3].startswith("cancelled after 5 min")
    assert lines[4] == "CancelledError: asked"


def test_a_driver_sees_the_stop_request_and_takes_its_files_away(runs):
    paths = put(runs, "r", JobState.RUNNING)
    with Presence(paths, look_s=0.01) as presence:
        assert presence.stop_reason() is None
        assert main(["runs", "stop", "r", "--runs", str(runs), "--timeout-s", "0"]) == 0
        end = datetime.now(UTC) + timedelta(seconds=60)
        while presence.stop_reason() is None and datetime.now(UTC) < end:
            threading.Event().wait(0.01)
        assert "asked it to stop" in presence.stop_reason()
        assert read_all(str(runs))[0].heard is not None
    assert sorted(path.name for path in (runs / "r").iterdir()) == ["status.json"]


def test_a_driver_outlives_storage_that_fails(runs, monkeypatch, caplog):
    paths = put(runs, "r", JobState.RUNNING)
    asked = threading.Event()

    def fail(*_):
        asked.set()
        msg = "gone for a while"
        raise StorageError(msg)

    monkeypatch.setattr("spark_dl.pipeline.presence.Storage.exists", fail)
    with Presence(paths, look_s=0.01) as presence:
        assert asked.wait(60)
        monkeypatch.undo()
        (runs / "r" / "stop.json").touch()
        end = datetime.now(UTC) + timedelta(seconds=60)
        while presence.stop_reason() is None and datetime.now(UTC) < end:
            threading.Event().wait(0.01)
    assert presence.stop_reason() == "its run directory holds a stop request"
    messages = [record.getMessage() for record in caplog.records]
    assert sum("gone for a while" in message for message in messages) == 1


def test_what_is_over_cannot_be_stopped(runs, capsys):
    succeeded(runs, "r", [1.0])
    assert main(["runs", "stop", "r", "--runs", str(runs)]) == 2
    assert "is over already" in capsys.readouterr().err


def test_a_run_that_does_not_stop_is_said_to_be_silent_for_so_long(runs, capsys):
    put(runs, "r", JobState.RUNNING, heard=ago(minutes=10))
    assert main(["runs", "stop", "r", "--runs", str(runs), "--timeout-s", "0.1"]) == 75
    assert "last heard 10 min" in capsys.readouterr().err


def entries(runs):
    succeeded(runs, "old", [1.0], days=40)
    succeeded(runs, "newer", [1.0], days=3)
    succeeded(runs, "newest", [1.0], hours=1)
    put(runs, "failed", JobState.FAILED, started=ago(days=50), ended=ago(days=50))
    put(runs, "live", JobState.RUNNING, started=ago(days=60), heard=ago(seconds=3))
    put(runs, "gone", JobState.RUNNING, started=ago(days=60), heard=ago(days=50))
    return read_all(str(runs))


@pytest.mark.parametrize(
    ("rule", "removed"),
    [
        (CleanRule(older_than=timedelta(days=30)), ["failed", "old"]),
        (CleanRule(keep_last=1), ["failed", "old", "newer"]),
        (CleanRule(keep_last=3, failed_only=True), ["failed"]),
        (CleanRule(older_than=timedelta(days=30), with_silent=True), ["gone", "failed", "old"]),
        (CleanRule(with_silent=True), ["gone", "failed", "old", "newer", "newest"]),
    ],
)
def test_clean_removes_by_rule_and_never_a_live_run(runs, rule, removed):
    assert [e.run_id for e in to_remove(entries(runs), rule, now=datetime.now(UTC))] == removed


def test_clean_tries_first_when_told(runs, capsys):
    entries(runs)
    words = ["runs", "clean", "--runs", runs, "--older-than", "30d"]
    assert "would remove" in output(capsys, *words, "--dry-run")
    assert len(read_all(str(runs))) == 6
    assert output(capsys, *words).count("removed") == 2
    assert {e.run_id for e in read_all(str(runs))} == {"newer", "newest", "live", "gone"}
    assert output(capsys, *words) == "nothing to remove\n"


def test_clean_without_a_rule_and_with_a_wrong_age_is_refused(runs, capsys):
    runs.mkdir()
    assert main(["runs", "clean", "--runs", str(runs)]) == 2
    assert main(["runs", "clean", "--runs", str(runs), "--older-than", "soon"]) == 2
    assert "such as 30d" in capsys.readouterr().err


def test_silence_counts_from_the_last_change_where_there_is_no_heartbeat(runs):
    put(runs, "r", JobState.RUNNING, started=ago(days=1))
    (entry,) = read_all(str(runs))
    assert entry.is_live(datetime.now(UTC))
    assert entry.is_silent(datetime.now(UTC) + 2 * SILENT_AFTER)


def test_curves_are_read_by_split(runs):
    paths = succeeded(runs, "r", [2.0, 1.0])
    with open(paths.metrics, "a", encoding="utf-8") as file:
        file.write('{"epoch": 2, "scope": "ep')  # being written
    curves = read_metrics(read_all(str(runs))[0])
    assert list(curves) == ["loss", "val_loss"]
    assert curves["val_loss"].values == [2.1, 1.1]
    assert curves["loss"].epochs == [1, 2]


def test_the_folder_of_runs_may_come_from_the_config(runs, tmp_path, capsys):
    succeeded(runs, "r", [1.0])
    config = tmp_path / "job.yaml"
    config.write_text(f"runs: {runs}\n")
    assert "succeeded" in output(capsys, "runs", "list", "--config", config)
    with pytest.raises(ConfigError, match="there is no run 'x'"):
        find(str(runs), ["x"])


def test_no_such_folder(tmp_path, capsys):
    assert main(["runs", "list", "--runs", str(tmp_path / "none")]) == 2
    assert "no folder of runs" in capsys.readouterr().err

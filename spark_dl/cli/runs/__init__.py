"""``spark-dl runs``: what was trained, what trains now, and tidying up.

Works from the run directories alone, wherever they lie: no server, no database, no Spark.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, get_args

from spark_dl.cli.runs.catalogue import Entry, find, read_all, read_metrics, read_settings
from spark_dl.cli.runs.clean import CleanRule, parse_age, to_remove
from spark_dl.cli.runs.compare import compare_page, compare_table, load
from spark_dl.cli.runs.follow import follow, request_stop, wait_for_end
from spark_dl.cli.runs.text import brief_metrics, duration, number, table
from spark_dl.config import JobName, load_config
from spark_dl.errors import ConfigError
from spark_dl.storage import JobState, Storage, normalise

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["add_arguments", "add_folder_arguments", "run", "runs_folder"]

_DEFAULT_RUNS: Final = "runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, what: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=what, description=f"{what[:1].upper()}{what[1:]}.")
        add_folder_arguments(added)
        return added

    listed = action("list", "all runs, the newest first")
    listed.add_argument("--job", choices=get_args(JobName), help="only these")
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    shown = action("show", "everything about one run")
    shown.add_argument("run_id", metavar="RUN", help="its name, or `latest`")
    shown.add_argument("--json", action="store_true", help="as one JSON object")
    compared = action("compare", "runs side by side: a table, and a page with their curves")
    compared.add_argument("run_ids", metavar="RUN", nargs="+", help="names, or `latest`")
    compared.add_argument("--html", metavar="FILE", help="write the page with the curves there")
    tail = action("tail", "follow a run until it ends; exit code 0 if it succeeded, else 2")
    tail.add_argument("run_id", metavar="RUN", help="its name, or `latest`")
    tail.add_argument("--no-follow", action="store_true", help="print what is there and end")
    stop = action("stop", "ask a running training to stop; its status becomes `cancelled`")
    stop.add_argument("run_id", metavar="RUN", help="its name, or `latest`")
    stop.add_argument("--timeout-s", type=float, default=120.0, help="wait so long; 0: do not wait")
    clean = action("clean", "remove runs that are over; never one that may be alive")
    clean.add_argument("--older-than", metavar="AGE", help="ended that long ago: 30d, 12h, …")
    clean.add_argument(
        "--keep-last", type=int, default=0, metavar="N", help="succeeded runs to keep"
    )
    clean.add_argument("--failed", action="store_true", help="only failed and cancelled ones")
    clean.add_argument("--silent", action="store_true", help="also those whose driver went silent")
    clean.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the runs are."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--runs", metavar="FOLDER", help="folder of runs; default: ./runs")
    where.add_argument("--config", metavar="FILE", help="the YAML whose `runs` it is")


def run(options: argparse.Namespace) -> int:
    """Do what was asked."""
    return _ACTIONS[options.action](options, runs_folder(options))


def runs_folder(options: argparse.Namespace) -> str:
    """Return the folder of runs that the arguments name.

    Raises:
        ConfigError: there is none.
    """
    folder = options.runs
    if options.config is not None:
        folder = load_config(options.config).runs
        if folder is None:
            msg = f"{options.config} has no `runs`: add it, or give --runs FOLDER"
            raise ConfigError(msg)
    runs = normalise(folder or _DEFAULT_RUNS)
    if not Storage(runs).exists(runs):
        msg = f"there is no folder of runs {runs}: give --runs FOLDER or --config FILE"
        raise ConfigError(msg)
    return runs


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _list(options: argparse.Namespace, runs: str) -> int:
    now = datetime.now(UTC)
    entries = [entry for entry in read_all(runs) if options.job in (None, entry.status.job)]
    if options.json:
        for entry in entries:
            _say(json.dumps(_facts(entry, now)))
        return 0
    if not entries:
        _say(f"no runs in {runs}")
        return 0
    rows = [
        [
            entry.run_id,
            entry.status.job,
            entry.state(now),
            f"{entry.status.started[:16].replace('T', ' ')}",
            duration(entry.duration(now)),
            str(entry.status.attempt),
            brief_metrics(entry.status.metrics),
        ]
        for entry in entries
    ]
    header = ["run", "job", "state", "started (UTC)", "took", "attempt", "metrics"]
    _say(table(header, rows))
    for entry in entries:
        if (silence := entry.silence(now)) is not None and entry.is_silent(now):
            _say(f"{entry.run_id}: its driver has given no sign of life for {duration(silence)}")
    return 0


def _facts(entry: Entry, now: datetime) -> dict[str, object]:
    return {
        **entry.status.model_dump(by_alias=True, mode="json"),
        "path": entry.paths.root,
        "silent": entry.is_silent(now),
        "took_s": round(entry.duration(now).total_seconds(), 1),
    }


def _show(options: argparse.Namespace, runs: str) -> int:
    now = datetime.now(UTC)
    entry = find(runs, [options.run_id])[0]
    curves, settings = read_metrics(entry), read_settings(entry)
    if options.json:
        history = {name: curve.values for name, curve in curves.items()}
        facts = {**_facts(entry, now), "history": history, "settings": settings}
        _say(json.dumps(json.loads(json.dumps(facts, default=str), parse_constant=lambda _: None)))
        return 0
    status = entry.status
    rows = [
        ["job", status.job],
        ["state", entry.state(now)],
        ["attempt", str(status.attempt)],
        ["started", status.started],
        ["ended", status.ended or "-"],
        ["took", duration(entry.duration(now))],
        ["directory", entry.paths.root],
    ]
    if status.tensorboard is not None and not entry.has_ended:
        rows.append(["TensorBoard", status.tensorboard])
    rows += [[f"metric {name}", number(value)] for name, value in status.metrics.items()]
    rows += [[f"cost {name}", number(value)] for name, value in status.cost.items()]
    versions = Storage(entry.paths.root).list(entry.paths.models)
    rows += [["model", entry.paths.model(int(v))] for v in versions if v.isdecimal()]
    rows += [[key, "null" if value is None else str(value)] for key, value in settings.items()]
    _say(table([entry.run_id, ""], rows))
    if status.error is not None:
        again = "trying again may help" if status.error.retryable else "trying again does not help"
        _say(f"\n{status.error.error_class} ({again}):\n{status.error.message}")
    if curves:
        epochs = max(len(curve.values) for curve in curves.values())
        cells = [
            [
                str(n + 1),
                *(number(c.values[n] if n < len(c.values) else None) for c in curves.values()),
            ]
            for n in range(epochs)
        ]
        _say("\n" + table(["epoch", *curves], cells))
    return 0


def _compare(options: argparse.Namespace, runs: str) -> int:
    compared = load(find(runs, options.run_ids), now=datetime.now(UTC))
    _say(compare_table(compared))
    if options.html is not None:
        with open(options.html, "w", encoding="utf-8") as file:
            file.write(compare_page(compared))
        _say(f"curves: {os.path.abspath(options.html)}")
    return 0


def _tail(options: argparse.Namespace, runs: str) -> int:
    entry = find(runs, [options.run_id])[0]
    for line in follow(runs, entry.run_id, keep_going=not options.no_follow):
        _say(line)
    state = find(runs, [entry.run_id])[0].status.status
    return 2 if state in (JobState.FAILED, JobState.CANCELLED) else 0


def _stop(options: argparse.Namespace, runs: str) -> int:
    entry = find(runs, [options.run_id])[0]
    by = request_stop(entry)
    _say(f"{entry.run_id}: {by} asked it to stop")
    if options.timeout_s <= 0:
        return 0
    ended = wait_for_end(lambda: find(runs, [entry.run_id])[0], timeout_s=options.timeout_s)
    _say(f"{ended.run_id}: {ended.status.status}")
    return 0


def _clean(options: argparse.Namespace, runs: str) -> int:
    if options.older_than is None and options.keep_last < 1 and not options.failed:
        msg = "say what to remove: --older-than AGE, --keep-last N or --failed"
        raise ConfigError(msg)
    rule = CleanRule(
        older_than=parse_age(options.older_than) if options.older_than else None,
        keep_last=options.keep_last,
        failed_only=options.failed,
        with_silent=options.silent,
    )
    storage = Storage(runs)
    doomed = to_remove(read_all(runs), rule, now=datetime.now(UTC))
    for entry in doomed:
        if options.dry_run:
            _say(f"would remove {entry.paths.root} ({entry.status.status})")
            continue
        # it may have been started again since the list was made
        if not to_remove(find(runs, [entry.run_id]), rule_of_one(rule), now=datetime.now(UTC)):
            _say(f"kept {entry.paths.root}: it has changed meanwhile")
            continue
        storage.remove(entry.paths.root)
        _say(f"removed {entry.paths.root} ({entry.status.status})")
    if not doomed:
        _say("nothing to remove")
    return 0


def rule_of_one(rule: CleanRule) -> CleanRule:
    """Return a rule for one run alone, for which "the last N" has no meaning."""
    return CleanRule(older_than=rule.older_than, with_silent=rule.with_silent)


_ACTIONS: Final[dict[str, Callable[[argparse.Namespace, str], int]]] = {
    "list": _list,
    "show": _show,
    "compare": _compare,
    "tail": _tail,
    "stop": _stop,
    "clean": _clean,
}

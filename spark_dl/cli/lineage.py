"""Where a table's predictions come from: table version → dataset → run → model → predictions.

It reads the table's own log and the run directory; no Spark is started.
"""

from __future__ import annotations

import json
import posixpath
import sys
from typing import TYPE_CHECKING, Any

from spark_dl.errors import SparkDLError, TableError
from spark_dl.runs import read_status
from spark_dl.shards import Manifest
from spark_dl.storage import RunPaths, Storage, join
from spark_dl.storage.checksum import MODEL_FILE
from spark_dl.tables.commits import scoring_commits

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from spark_dl.tables.commits import Commit

__all__ = ["add_arguments", "chain", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("table", metavar="TABLE", help="folder of a Delta table of predictions")
    parser.add_argument("--scoring-id", help="only this scoring; by default all, newest first")
    parser.add_argument("--json", action="store_true", help="one JSON object a scoring")


def run(options: argparse.Namespace) -> int:
    """Print the chain of every scoring that wrote the table."""
    commits = _chosen(scoring_commits(options.table), options.scoring_id, options.table)
    chains = [chain(options.table, commit) for commit in commits]
    if options.json:
        lines = [json.dumps(found) for found in chains]
    else:
        lines = ["\n".join(_lines(found)) + "\n" for found in chains]
    sys.stdout.write("\n".join(lines).rstrip() + "\n")
    return 0


def _chosen(commits: Sequence[Commit], scoring_id: str | None, table: str) -> Sequence[Commit]:
    if scoring_id is None:
        return commits
    chosen = [commit for commit in commits if commit.scoring_id == scoring_id]
    if not chosen:
        known = ", ".join(commit.scoring_id for commit in commits)
        msg = f"{table} has no scoring {scoring_id!r} (scorings: {known})"
        raise TableError(msg)
    return chosen


def chain(table: str, commit: Commit) -> dict[str, Any]:
    """Return a scoring's chain, from the predictions back to the rows that the model learnt from.

    Args:
        table: the table of predictions.
        commit: the commit that holds them.

    Returns:
        ``predictions``, ``scored``, ``model``, and ``run`` and ``dataset`` where a run of ours made
        the model and its directory is there.
    """
    facts = commit.facts
    found: dict[str, Any] = {
        "predictions": {
            "table": table,
            "version": commit.version,
            "rows": commit.rows,
            "scoring_id": commit.scoring_id,
            "written": commit.time,
            "by": f"spark-dl {facts.get('version', '?')}",
        },
        "scored": {
            "table": facts.get("source", ""),
            "version": facts.get("source_version", ""),
            "where": facts.get("source_where", ""),
        },
        "model": {
            "path": facts.get("model_path", ""),
            "version": facts.get("model_version", ""),
            "checksum": facts.get("model_checksum", ""),
            "init_from": _init_from(facts.get("model_path", "")),
        },
    }
    run_id = facts.get("model_run_id")
    if run_id:
        found["run"] = {"run_id": run_id, **_run_facts(run_id, facts.get("model_path", ""))}
        found["dataset"] = _dataset_facts(facts, found["run"].get("path", ""))
    return found


def _init_from(model_path: str) -> str:
    """Return the file of the weights that the model's run began with; empty for initial ones."""
    try:
        told = json.loads(Storage(model_path).read_bytes(join(model_path, MODEL_FILE)))
    except (SparkDLError, OSError, ValueError):
        return ""  # no longer there, or not ours
    return str(told.get("init_from", "")) if isinstance(told, dict) else ""


def _run_facts(run_id: str, model_path: str) -> dict[str, Any]:
    """Return what the run directory says, which lies two folders above the model's."""
    root = posixpath.dirname(posixpath.dirname(model_path))
    if posixpath.basename(root) != run_id:
        return {}  # the model was copied elsewhere
    try:
        status = read_status(RunPaths(runs=posixpath.dirname(root), run_id=run_id))
    except (SparkDLError, OSError):
        status = None
    if status is None:
        return {"path": root, "status": "no longer there"}
    return {
        "path": root,
        "status": status.status.value,
        "ended": status.ended,
        "metrics": status.metrics,
    }


def _dataset_facts(facts: Mapping[str, str], root: str) -> dict[str, Any]:
    known: dict[str, Any] = {"fingerprint": facts.get("dataset_fingerprint", "")}
    try:
        manifest = Manifest.read(root) if root else None
    except (SparkDLError, OSError):
        manifest = None
    if manifest is None:
        return known
    source = manifest.source
    return {
        "fingerprint": manifest.fingerprint,
        "rows": manifest.totals,
        "table": source.table,
        "version": source.version,
        "where": source.where,
    }


def _lines(found: Mapping[str, Any]) -> list[str]:
    """Return the chain for people, in the order of time: the table that was learnt from first."""
    lines = []
    dataset, trained = found.get("dataset"), found.get("run")
    if dataset and "rows" in dataset:
        rows = ", ".join(f"{split} {count}" for split, count in dataset["rows"].items())
        lines += [
            f"table        {_table(dataset)}",
            f"  dataset    {dataset['fingerprint']} ({rows})",
        ]
    elif dataset:
        lines += [
            "table        not known any more",
            f"  dataset    {dataset['fingerprint'] or '?'}",
        ]
    if found["model"]["init_from"]:
        lines.append(f"  init_from  {found['model']['init_from']}")
    if trained:
        metrics = trained.get("metrics") or {}
        shown = ", ".join(
            f"{name} {value:.4g}" for name, value in metrics.items() if value is not None
        )
        state = ", ".join(part for part in (trained.get("status"), shown) if part)
        lines.append(f"  run        {trained['run_id']}{f' ({state})' if state else ''}")
    model, made = found["model"], found["predictions"]
    version = f" version {model['version']}" if model["version"] else ""
    rows = "" if made["rows"] is None else f", {made['rows']} rows"
    table = f"{made['table']} version {made['version']}{rows}"
    return [
        *lines,
        f"  model      {model['path']}{version} {model['checksum'][:19]}",
        f"  scored     {_table(found['scored'])}",
        f"predictions  {table}, scoring {made['scoring_id']}, {made['written']}, {made['by']}",
    ]


def _table(facts: Mapping[str, Any]) -> str:
    name = facts["table"] or "a DataFrame of unknown origin"
    version = "" if facts["version"] in ("", None) else f" version {facts['version']}"
    return f"{name}{version}{' where ' + facts['where'] if facts['where'] else ''}"

"""What lies in a folder of run directories, read without changing anything."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import ValidationError

from spark_dl.errors import ConfigError, SparkDLError, did_you_mean
from spark_dl.storage import JobState, JobStatus, RunPaths, Storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["SILENT_AFTER", "Entry", "Metric", "find", "parse_time", "read_all", "read_metrics"]

#: A driver beats every 12 s; ten missed beats are no garbage collection any more.
SILENT_AFTER: Final = timedelta(seconds=120)
_ENDED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run directory.

    Attributes:
        paths: where everything of it lies.
        status: its `status.json`.
        heard: when its driver last gave a sign of life, `None` when nothing tells.
    """

    paths: RunPaths
    status: JobStatus
    heard: datetime | None = None

    @property
    def run_id(self) -> str:
        """Its name."""
        return self.paths.run_id

    @property
    def has_ended(self) -> bool:
        """Whether its status says that it is over."""
        return self.status.status in _ENDED

    def silence(self, now: datetime) -> timedelta | None:
        """Return for how long a run that has not ended has given no sign of life."""
        if self.has_ended:
            return None
        return now - (self.heard or parse_time(self.status.started))

    def is_silent(self, now: datetime) -> bool:
        """Whether it says that it runs, and its driver seems to be gone."""
        silence = self.silence(now)
        return silence is not None and silence > SILENT_AFTER

    def is_live(self, now: datetime) -> bool:
        """Whether it runs, as far as anybody can tell."""
        return not self.has_ended and not self.is_silent(now)

    def state(self, now: datetime) -> str:
        """Return its state in a word or a few."""
        return f"{self.status.status}, silent" if self.is_silent(now) else str(self.status.status)

    def duration(self, now: datetime) -> timedelta:
        """Return how long it took, or has taken so far."""
        ended = self.status.ended
        last = parse_time(ended) if ended else (self.heard if self.is_silent(now) else now)
        return (last or now) - parse_time(self.status.started)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One curve: a metric of one split, a value an epoch.

    Attributes:
        name: such as ``loss``; validation's is ``val_loss``.
        epochs: counted from 1.
        values: NaN where a value was not finite.
    """

    name: str
    epochs: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def parse_time(text: str) -> datetime:
    """Return the time that `status.json` wrote, in UTC."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def read_all(runs: str) -> list[Entry]:
    """Return all runs and jobs in a folder, the newest first.

    Directories without a readable `status.json` are none of ours and are left out.
    """
    storage = Storage(runs)
    entries = [entry for name in storage.list(runs) if (entry := _read(runs, name)) is not None]
    return sorted(entries, key=lambda entry: (entry.status.started, entry.run_id), reverse=True)


def find(runs: str, run_ids: Sequence[str]) -> list[Entry]:
    """Return runs by their names; ``latest`` is the newest training.

    Raises:
        ConfigError: there is no run of that name; the message names one that is close.
    """
    everything = read_all(runs)
    by_id = {entry.run_id: entry for entry in everything}
    trainings = [entry for entry in everything if entry.status.job == "train"]
    found = []
    for run_id in run_ids:
        entry = by_id.get(run_id)
        if entry is None and run_id == "latest" and trainings:
            entry = trainings[0]
        if entry is None:
            hint = did_you_mean(run_id, by_id)
            have = f"it holds {len(by_id)} runs, see `spark-dl runs list`" if by_id else "no run"
            msg = f"there is no run {run_id!r} in {runs}{hint} ({have})"
            raise ConfigError(msg)
        found.append(entry)
    return found


def read_metrics(entry: Entry) -> dict[str, Metric]:
    """Return the curves of a run by name, one value an epoch."""
    storage = Storage(entry.paths.root)
    if not storage.exists(entry.paths.metrics):
        return {}
    curves: dict[str, Metric] = {}
    for record in _records(storage.read_text(entry.paths.metrics).splitlines()):
        if record.get("scope") != "epoch":
            continue
        prefix = "" if record.get("split") == "train" else "val_"
        for name in record.keys() - {"time", "epoch", "step", "split", "scope"}:
            curve = curves.setdefault(prefix + name, Metric(name=prefix + name))
            curve.epochs.append(int(record["epoch"]) + 1)
            value = record[name]
            curve.values.append(math.nan if value is None else float(value))
    return dict(sorted(curves.items(), key=lambda item: (item[0].removeprefix("val_"), item[0])))


def read_settings(entry: Entry) -> dict[str, Any]:
    """Return the run's `job.yaml` as dotted keys and values; empty when there is none."""
    storage = Storage(entry.paths.root)
    if not storage.exists(entry.paths.job):
        return {}
    return dict(_dotted("", yaml.safe_load(storage.read_text(entry.paths.job)) or {}))


def _dotted(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:  # noqa: ANN401 (YAML)
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _dotted(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value


def _records(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # the last line of a run that is being written
            continue
        if isinstance(record, dict):
            yield record


def _read(runs: str, name: str) -> Entry | None:
    try:
        paths = RunPaths(runs=runs, run_id=name)
    except ConfigError:  # a name that no run of ours can have
        return None
    storage = Storage(paths.root)
    try:
        if not storage.exists(paths.status):
            return None
        status = JobStatus.read(paths.status)
    except (ValidationError, SparkDLError):
        return None
    heard = None if status.status in _ENDED else _heard(storage, paths)
    return Entry(paths=paths, status=status, heard=heard)


def _heard(storage: Storage, paths: RunPaths) -> datetime | None:
    """Return the last heartbeat; without one, when anything in the run last changed."""
    try:
        if storage.exists(paths.heartbeat):
            return parse_time(json.loads(storage.read_bytes(paths.heartbeat))["time"])
    except (SparkDLError, ValueError, LookupError, TypeError):
        pass  # removed, or replaced, since
    return storage.last_change(paths.root)

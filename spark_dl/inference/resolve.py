"""Which model is meant by `latest`, `best`, a run id or a path."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from spark_dl.errors import ConfigError, ModelError, StorageError, did_you_mean
from spark_dl.inference.model import model_kind, open_model
from spark_dl.storage import JobState, JobStatus, RunPaths, Storage, finite, join, normalise
from spark_dl.storage.checksum import file_checksum, folder_checksum

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ModelRef", "best_run", "metric_mode", "model_path", "resolve_model"]

_LOWER_IS_BETTER = (
    "loss",
    "error",
    "mse",
    "mae",
    "mape",
    "msle",
    "rmse",
    "divergence",
    "perplexity",
)


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A model that was found.

    Attributes:
        path: folder of the version, of a SavedModel, or a ``.keras`` file.
        run_id: run that made it; `None` of a model that is not ours.
        version: number of the export within the run; `None` of a model that is not ours.
        checksum: checksum of the folder or file.
    """

    path: str
    run_id: str | None
    version: int | None
    checksum: str


def metric_mode(metric: str) -> Literal["min", "max"]:
    """Return whether the least or the greatest value of a metric is the best, by its name.

    Example:
        >>> metric_mode("val_loss"), metric_mode("val_accuracy")
        ('min', 'max')
    """
    name = metric.lower()
    return "min" if any(word in name for word in _LOWER_IS_BETTER) else "max"


def best_run(runs: Sequence[JobStatus], metric: str) -> JobStatus:
    """Return the run with the best final value of `metric`; of equals the one that ended last.

    A run that diverged, so that its value is not finite, is left out.

    Raises:
        ModelError: no run has that metric, or all that have it diverged.
    """
    known = sorted({name for run in runs for name in run.metrics})
    values = [(finite(run.metrics).get(metric), run) for run in runs]
    scored = [(value, run) for value, run in values if value is not None]
    if not scored and metric in known:
        msg = f"the metric {metric!r} is finite in no run: all that have it diverged"
        raise ModelError(msg)
    if not scored:
        msg = (
            f"no run has the metric {metric!r}{did_you_mean(metric, known)} "
            f"(metrics of the {len(runs)} succeeded runs: {', '.join(known) or 'none'}); set "
            "`infer.metric`"
        )
        raise ModelError(msg)
    sign = -1.0 if metric_mode(metric) == "min" else 1.0
    return max(scored, key=lambda pair: (sign * pair[0], pair[1].ended or ""))[1]


def resolve_model(
    model: str | os.PathLike[str], *, runs: str | os.PathLike[str], metric: str | None = None
) -> ModelRef:
    """Find a model.

    Args:
        model: ``latest`` (of the runs that succeeded, the one that ended last), ``best`` (the best
            by `metric`), a run id in `runs`, or the path of an exported version, of any SavedModel
            or of a ``.keras`` file. Of a run its newest version is taken.
        runs: folder of run directories.
        metric: name of the metric that ``best`` goes by, as in `Run.metrics`.

    Raises:
        ConfigError: ``best`` without a metric.
        ModelError: nothing fits; the message says what there is.
    """
    return _ref(model_path(model, runs=runs, metric=metric))


def model_path(
    model: str | os.PathLike[str], *, runs: str | os.PathLike[str], metric: str | None = None
) -> str:
    """Return the path of a model, found as `resolve_model` does it, without reading it."""
    text = os.fspath(model)
    if text not in {"latest", "best"}:
        return _run_or_path(text, runs)
    succeeded = _succeeded_runs(normalise(runs))
    if not succeeded:
        msg = f"model {text!r}: no training run in {normalise(runs)} has succeeded"
        raise ModelError(msg)
    if text == "latest":
        chosen = max(succeeded, key=lambda run: run.ended or "")
    elif metric is None:
        msg = "model 'best': by which metric? Set `infer.metric`, for example to val_loss"
        raise ConfigError(msg)
    else:
        chosen = best_run(succeeded, metric)
    return _newest_version(RunPaths(runs=os.fspath(runs), run_id=chosen.id))


def _run_or_path(text: str, runs: str | os.PathLike[str]) -> str:
    if "/" in text:
        return text
    folder = normalise(runs)
    names = Storage(folder).list(folder)
    if text in names:
        return _newest_version(RunPaths(runs=folder, run_id=text))
    if os.path.isdir(text) or os.path.isfile(text):
        return text
    msg = (
        f"model {text!r}: no such run in {folder}{did_you_mean(text, names)} and no such folder; "
        "expected latest, "
        f"best, a run id or a path"
    )
    raise ModelError(msg)


def _succeeded_runs(folder: str) -> list[JobStatus]:
    found = []
    for name in Storage(folder).list(folder):
        try:
            status = JobStatus.read(join(folder, name, "status.json"))
        except (StorageError, ValidationError, NotADirectoryError):
            continue  # another job's folder, or one that is being written
        if status.job == "train" and status.id == name and status.status is JobState.SUCCEEDED:
            found.append(status)
    return found


def _newest_version(paths: RunPaths) -> str:
    versions = [int(name) for name in Storage(paths.models).list(paths.models) if name.isdecimal()]
    if not versions:
        msg = f"run {paths.run_id} has exported no model yet ({paths.models} holds no version)"
        raise ModelError(msg)
    return paths.model(max(versions))


def _ref(path: str) -> ModelRef:
    kind = model_kind(path)
    if kind != "exported":
        checksum = file_checksum(path) if kind == "keras" else folder_checksum(path)
        return ModelRef(path=normalise(path), run_id=None, version=None, checksum=checksum)
    model = open_model(path)
    return ModelRef(
        path=model.path, run_id=model.run_id, version=model.version, checksum=model.checksum
    )

"""The training of one rank, from the shards to the exported model."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from spark_dl.shards import Manifest
from spark_dl.shards.assignment import evaluation_rows
from spark_dl.training.callback_state import CallbackStates
from spark_dl.training.callbacks import Checkpoints, EpochEnd, StepReports, Validation
from spark_dl.training.checkpoint import CheckpointStore
from spark_dl.training.collective import Collective, form_collective
from spark_dl.training.data import evaluation_dataset, training_dataset
from spark_dl.training.events import RunLog
from spark_dl.training.export import export_model, takes_bare_input
from spark_dl.training.initial import load_initial
from spark_dl.training.loop import fit_from
from spark_dl.training.metrics import check_reducible
from spark_dl.training.model import build_model
from spark_dl.training.own_loop import run_own_loop
from spark_dl.training.pulse import Pulse
from spark_dl.training.resume import resume
from spark_dl.training.rows import assign_rows, open_split
from spark_dl.training.saving import Saver
from spark_dl.training.state import averaged_state, equalise
from spark_dl.training.user import Rank, user_callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import keras
    import tensorflow as tf

    from spark_dl.training.context import RankContext
    from spark_dl.training.data import ShardReader
    from spark_dl.training.task import TrainTask

__all__ = ["fit", "train"]

logger = logging.getLogger(__name__)


def train(task: TrainTask, context: RankContext) -> dict[str, Any]:
    """Train on this rank; the entry of the child process.

    Args:
        task: what to train, the same on all ranks.
        context: this rank's place in the cluster.

    Returns:
        ``history`` (reduced metrics, a list of one value an epoch), ``steps``, and on the chief
        ``model_path``.
    """
    # before anything else of TensorFlow runs
    with _deadline(context):
        collective = form_collective(context.rank, context.world_size, cores=context.cores)
        collective.barrier()
    if task.train_fn is not None:
        return run_own_loop(task, collective, context.report)
    return fit(task, collective, context.report)


@contextlib.contextmanager
def _deadline(context: RankContext) -> Iterator[None]:
    """Have the agent end this process when the ranks do not reach each other.

    TensorFlow would wait for ever, and lets no other thread of this process run meanwhile.
    """
    servers = ", ".join(context.addresses)
    context.report(
        {
            "kind": "wait",
            "what": f"the workers' TensorFlow servers to reach each other ({servers})",
            "timeout_s": context.start_timeout_s,
            "setting": "cluster.start_timeout_s",
        }
    )
    yield
    context.report({"kind": "wait-over"})


def fit(
    task: TrainTask, collective: Collective, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Train in a cluster that is formed already; see `train`.

    Args:
        task: what to train, the same on all ranks.
        collective: of this rank.
        report: takes the events for the driver.
    """
    manifest = Manifest.read(task.dataset)
    assignment = assign_rows(task, manifest, collective)
    model = build_model(task, manifest.spec, collective)
    bare = takes_bare_input(model, manifest.spec)
    reader = open_split(task, manifest, task.train_split)
    _build(model, reader, manifest, bare=bare)
    check_reducible(model)
    store = CheckpointStore(task.paths, task.checkpoint)
    if task.init_from and collective.rank == 0 and not store.steps():
        load_initial(model, task.init_from)  # the others get the chief's weights next
    equalise(model, task.seed, collective)
    start = resume(task, model, store, collective, assignment.steps_per_epoch)
    saver = Saver(store, collective)

    def batches(epoch: int, step: int) -> tf.data.Dataset:
        return training_dataset(
            reader,
            assignment,
            manifest.spec,
            epochs=range(epoch, task.epochs),
            step=step,
            bare=bare,
        )

    steps = assignment.steps_per_epoch
    with contextlib.ExitStack() as stack:
        pulse = stack.enter_context(Pulse(steps, report))
        log = stack.enter_context(RunLog(task.paths)) if collective.rank == 0 else None
        validation = _validation(task, manifest, collective, bare=bare)
        end = EpochEnd(collective, steps, validation, log, pulse)
        end.history.update(start.history)
        others = user_callbacks(task, _rank(task, collective))
        callbacks: list[keras.callbacks.Callback] = [pulse, end, *others]
        if log is not None:
            saver.before_commit = log.save
            log.write_graph(model)
            callbacks.append(StepReports(task, steps, log, report))
        states = CallbackStates(others, start.own)
        callbacks.append(Checkpoints(task, collective, steps, saver, end.history, states))
        fit_from(model, batches, callbacks, start=start, epochs=task.epochs, steps_per_epoch=steps)
        pulse.tell("saving")
        saver.wait()
    report({"kind": "pulse", "doing": "exporting"})
    result: dict[str, Any] = {
        "history": end.history,
        "steps": steps * len(end.history["loss"]),
        "resumed_from": start.step,
    }
    with averaged_state(model, collective):
        if collective.rank == 0:
            result["model_path"] = export_model(
                model,
                manifest.spec,
                task.paths.model(task.version),
                run_id=task.paths.run_id,
                version=task.version,
                fingerprint=task.fingerprint,
                init_from=task.init_from,
            )
    return result


def _rank(task: TrainTask, collective: Collective) -> Rank:
    return Rank(
        rank=collective.rank,
        world_size=collective.world_size,
        paths=task.paths,
        params=task.params,
    )


def _probe(reader: ShardReader, manifest: Manifest, *, bare: bool) -> tf.data.Dataset:
    """Return one batch of one row."""
    return evaluation_dataset(reader, manifest.spec, range(1), batch_size=1, bare=bare)


def _build(model: keras.Model, reader: ShardReader, manifest: Manifest, *, bare: bool) -> None:
    """Create all variables: Keras makes those of the metrics in the first step only."""
    model.evaluate(_probe(reader, manifest, bare=bare), verbose=0)
    model.reset_metrics()
    model.optimizer.build(model.trainable_variables)


def _validation(
    task: TrainTask, manifest: Manifest, collective: Collective, *, bare: bool
) -> Validation | None:
    split = task.validation_split
    if not split or not manifest.totals.get(split):
        return None
    reader = open_split(task, manifest, split)
    rows = evaluation_rows(manifest.totals[split], collective.world_size, collective.rank)
    batch_size = max(task.global_batch_size // collective.world_size, 1)
    mine = (
        evaluation_dataset(reader, manifest.spec, rows, batch_size=batch_size, bare=bare)
        if rows
        else None
    )
    return Validation(mine=mine, probe=_probe(reader, manifest, bare=bare))

"""The training of one rank, from the shards to the exported model."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

import tensorflow as tf

from spark_dl.shards.assignment import evaluation_rows
from spark_dl.training.boards import Histograms, Profile
from spark_dl.training.callback_state import CallbackStates
from spark_dl.training.callbacks import Checkpoints, EpochEnd, StepReports
from spark_dl.training.collective import Collective, form_collective
from spark_dl.training.data import evaluation_dataset
from spark_dl.training.events import RunLog
from spark_dl.training.finish import export_trained
from spark_dl.training.loop import fit_from
from spark_dl.training.numerics import explained, watch_numerics
from spark_dl.training.own_loop import run_own_loop
from spark_dl.training.pulse import Pace, Pulse
from spark_dl.training.rows import open_split, told_by_readers
from spark_dl.training.setup import Setup, probe, set_up
from spark_dl.training.user import Rank, user_callbacks
from spark_dl.training.validation import StepValidation, Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import keras

    from spark_dl.training.context import RankContext
    from spark_dl.training.task import TrainTask

__all__ = ["fit", "train"]

logger = logging.getLogger(__name__)

#: Seconds after which a thread of Python makes room for another. The sums of gradients take turns
#: with the input pipeline, at each call to a socket: with Python's 5 ms they wait for it longer
#: than they take (two ranks, a step of ResNet-20 of 260 ms: 12 to 21 ms in averages, with this 1).
_SWITCH_S: Final = 1e-4


def train(task: TrainTask, context: RankContext) -> dict[str, Any]:
    """Train on this rank; the entry of the child process.

    Args:
        task: what to train, the same on all ranks.
        context: this rank's place in the cluster.

    Returns:
        ``history`` (reduced metrics, a list of one value an epoch), ``steps``, and on the chief
        ``model_path``.
    """
    sys.setswitchinterval(_SWITCH_S)
    # before anything else of TensorFlow runs
    with _deadline(context):
        collective = form_collective(
            context.rank,
            context.world_size,
            cores=context.cores,
            timeout_s=context.start_timeout_s,
            ports=task.ports,
        )
        collective.barrier()
    try:
        with told_by_readers():
            if task.train_fn is not None:
                return run_own_loop(task, collective, context.report)
            return fit(task, collective, context.report)
    except Exception as error:
        if collective.lost is None:
            raise
        # told as TensorFlow tells that a peer is gone: seldom the cause, always worth a retry
        raise tf.errors.UnavailableError(None, None, str(collective.lost)) from error


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
    if task.check_numerics:
        watch_numerics()
    with explained(is_watched=task.check_numerics):
        setup = set_up(task, collective)
        history = _run_steps(setup, report)
    report({"kind": "pulse", "doing": "exporting"})
    return {
        "history": history,
        "steps": setup.steps_per_epoch * len(history["loss"]),
        "resumed_from": setup.start.step,
        "model_path": export_trained(setup.model, setup.manifest.spec, task, collective),
    }


def _run_steps(setup: Setup, report: Callable[[dict[str, Any]], None]) -> dict[str, list[float]]:
    """Train to the end, with checkpoints and records; return the history."""
    task, steps = setup.task, setup.steps_per_epoch
    with contextlib.ExitStack() as stack:
        pace = Pace(lambda: setup.collective.summed_s)
        pulse = stack.enter_context(Pulse(steps, report, pace))
        log = stack.enter_context(RunLog(task.paths)) if setup.collective.rank == 0 else None
        validation = _validation(setup, pulse)
        end = EpochEnd(setup.collective, steps, validation, log)
        end.history.update(setup.start.history)
        others = user_callbacks(task, _rank(setup))
        states = CallbackStates(others, setup.start.own)
        callbacks = [pulse, *_of_steps(setup, validation, log), end, *others]
        if log is not None:
            setup.saver.before_commit = log.save
            callbacks += _of_chief(setup, log, report)
        callbacks.append(
            Checkpoints(task, setup.collective, steps, setup.saver, end.history, states)
        )
        fit_from(
            setup.model,
            setup.batches,
            callbacks,
            start=setup.start,
            epochs=task.epochs,
            steps_per_epoch=steps,
        )
        pulse.tell("saving")
        setup.saver.wait()
    return end.history


def _of_steps(
    setup: Setup, validation: Validation | None, log: RunLog | None
) -> list[keras.callbacks.Callback]:
    """Return what may happen before and after a step on every rank."""
    callbacks: list[keras.callbacks.Callback] = [] if setup.rate is None else [setup.rate]
    if validation is not None and validation.when.every_steps is not None:
        callbacks.append(StepValidation(validation, setup.steps_per_epoch, log))
    return callbacks


def _of_chief(
    setup: Setup, log: RunLog, report: Callable[[dict[str, Any]], None]
) -> list[keras.callbacks.Callback]:
    """Return what only the chief does: reports, histograms, a profile."""
    task, steps = setup.task, setup.steps_per_epoch
    if setup.start.step == 0:
        log.write_graph(setup.model)
        log.write_job(task)
    callbacks: list[keras.callbacks.Callback] = [StepReports(task, steps, log, report)]
    if task.board.histograms_every_epochs is not None:
        callbacks.append(Histograms(task.board.histograms_every_epochs, steps, log))
    if task.board.profile_steps is not None:
        callbacks.append(Profile(task.board.profile_steps, steps, log.profiles))
    return callbacks


def _rank(setup: Setup) -> Rank:
    return Rank(
        rank=setup.collective.rank,
        world_size=setup.collective.world_size,
        paths=setup.task.paths,
        params=setup.task.params,
    )


def _validation(setup: Setup, pulse: Pulse) -> Validation | None:
    """Return the rows that this rank evaluates; `None` where the dataset has none to evaluate."""
    task, manifest, collective = setup.task, setup.manifest, setup.collective
    split = task.validation_split
    if not split or not manifest.totals.get(split):
        return None
    reader = open_split(task, manifest, split)
    rows = evaluation_rows(manifest.totals[split], collective.world_size, collective.rank)
    batch_size = max(task.global_batch_size // collective.world_size, 1)
    mine = (
        evaluation_dataset(reader, manifest.spec, rows, batch_size=batch_size, bare=setup.bare)
        if rows
        else None
    )
    return Validation(
        mine=mine,
        probe=probe(reader, manifest, bare=setup.bare),
        collective=collective,
        when=task.validation,
        callbacks=[pulse],
    )

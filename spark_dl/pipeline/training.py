"""One training: checks, TensorBoard, the cluster, and a true `status.json`."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from spark_dl.cluster.memory import check_overhead
from spark_dl.cluster.plan import LaunchRequest, Timeouts
from spark_dl.cluster.profile import WorkerResources, cluster_conf
from spark_dl.cluster.resources import (
    choose_num_workers,
    describe_slots,
    refuse_shared_gpus,
    refuse_unencrypted,
    wait_for_room,
    wait_for_slots,
)
from spark_dl.cluster.restart import RestartPolicy
from spark_dl.cluster.select import select_backend
from spark_dl.cluster.supervisor import run_on_cluster
from spark_dl.errors import ConfigError
from spark_dl.inference.resolve import resolve_model
from spark_dl.monitoring import Progress, ProgressEvent, start_tensorboard
from spark_dl.monitoring.reach import DriverPlace, ways_to_reach
from spark_dl.pipeline.attempts import next_attempt
from spark_dl.pipeline.cost import Held, cost, work_done
from spark_dl.pipeline.naming import short_name
from spark_dl.pipeline.presence import Presence
from spark_dl.runs import Record, Run, finished_run, read_status, recorded
from spark_dl.shards.assignment import Assignment
from spark_dl.storage import RunPaths, Storage, join, normalise
from spark_dl.storage.cache import check_room
from spark_dl.training.entry import NOISE, PRELOAD, run_rank
from spark_dl.training.task import Board, TrainTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyspark.sql import SparkSession

    from spark_dl.cluster.backend import Backend
    from spark_dl.config import JobConfig
    from spark_dl.config.sections import ClusterConfig
    from spark_dl.monitoring import TensorBoard
    from spark_dl.shards.dataset import Dataset

    ModelFn = Callable[..., Any] | str

__all__ = ["TrainingJob", "run_training"]

logger = logging.getLogger(__name__)
#: What workers print; an application can silence or redirect it by this name.
worker_logger = logging.getLogger("spark_dl.worker")

_TRAIN_SPLIT: Final = "train"
_READ_SPLITS: Final = (_TRAIN_SPLIT, "validation")
_WEIGHT_FILES: Final = (".keras", ".weights.h5")


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training as `train` and `run_train` ask for it; the fields are those of `train`."""

    model_fn: ModelFn | None
    train_fn: ModelFn | None = None
    params: Mapping[str, Any]
    callbacks: Any = None
    init_from: str | None = None
    dataset: Dataset
    config: JobConfig
    paths: RunPaths
    spark: SparkSession


def run_training(job: TrainingJob) -> Run:
    """Train, and keep `status.json` true whatever happens."""
    storage = Storage(job.paths.root)
    if (finished := finished_run(job.paths)) is not None:
        logger.info("run %s has succeeded already: nothing to do", job.paths.run_id)
        return finished
    earlier = read_status(job.paths)
    attempt = next_attempt(job.paths)
    with (
        recorded("train", job.paths, attempt=attempt) as record,
        contextlib.ExitStack() as stack,
    ):
        presence = stack.enter_context(Presence(job.paths))
        record.is_owner = presence.owns_run
        storage.write_atomic(job.paths.job, job.config.to_yaml())
        storage.write_atomic(job.paths.manifest, job.dataset.manifest.model_dump_json(indent=2))
        num_workers = _check(job)
        storage.make_folder(job.paths.events)
        backend, board = _choose_backend(job, num_workers, stack)
        progress = stack.enter_context(Progress())
        if board is not None:
            where = ways_to_reach(board.url, _driver_place(job), job.config.tensorboard.public_url)
            progress.announce(f"TensorBoard: {where}")
            record.tensorboard_at(where)
        request = _request(job, num_workers, progress, record, presence)
        results = _run_counted(backend, request, job, record, earlier.cost if earlier else {})
        history = results[0]["history"]
        run = Run(
            run_id=job.paths.run_id,
            path=job.paths.root,
            history=history,
            metrics={name: values[-1] for name, values in history.items() if values},
            model_path=results[0]["model_path"],
            tensorboard_url=board.url if board is not None else None,
        )
        record.succeeded(run.metrics)
    return run


def _choose_backend(
    job: TrainingJob, num_workers: int, stack: contextlib.ExitStack
) -> tuple[Backend, TensorBoard | None]:
    """Ask the executors what they have, while TensorBoard starts here: each takes a second or more.

    TensorBoard, if it runs, runs until the stack is closed.
    """
    tensorboard, cluster = job.config.tensorboard, job.config.cluster
    with ThreadPoolExecutor(1, "tensorboard-start") as aside:
        started = aside.submit(
            start_tensorboard, tensorboard, job.paths.events, ports=cluster.port_range
        )
        try:
            backend = select_backend(job.spark, cluster.backend, num_workers=num_workers)
        finally:
            board = started.result()
            if board is not None:
                stack.enter_context(board)
    return backend, board


def _run_counted(
    backend: Backend,
    request: LaunchRequest,
    job: TrainingJob,
    record: Record,
    before: Mapping[str, float],
) -> Sequence[Mapping[str, Any]]:
    """Run the ranks and record what that took, also when they fail."""
    conf = cluster_conf(job.spark)
    cores = _resources(job).task_cpus(conf)
    held = Held.of(conf, num_workers=request.num_workers, cores_per_worker=cores)
    done: dict[str, float] = {}
    started = time.monotonic()
    try:
        results = run_on_cluster(backend, request)
        done = work_done(results, job.config.training.global_batch_size)
    finally:
        record.spent(cost(held, time.monotonic() - started, done, before))
    return results


def _driver_place(job: TrainingJob) -> DriverPlace:
    conf = cluster_conf(job.spark)
    return DriverPlace(host=conf.get("spark.driver.host") or socket.gethostname(), conf=conf)


def _check(job: TrainingJob) -> int:
    """Check what can be known before the cluster starts; return the number of workers."""
    refuse_unencrypted(required=job.config.cluster.require_encryption)
    num_workers = _find_room(job)
    conf = cluster_conf(job.spark)
    refuse_shared_gpus(conf, num_workers, _resources(job))
    check_overhead(conf, num_workers, _resources(job))
    manifest = job.dataset.manifest
    manifest.split(_TRAIN_SPLIT)  # says so when it is missing or empty
    read = [shard.bytes for shard in manifest.shards if shard.split in _READ_SPLITS]
    check_room(job.config.storage, job.dataset.path, sum(read))
    Assignment(
        rows=manifest.totals[_TRAIN_SPLIT],
        world_size=num_workers,
        rank=0,
        global_batch_size=job.config.training.global_batch_size,
        seed=job.config.training.seed,
        remainder=job.config.training.remainder,
    )
    return num_workers


def _find_room(job: TrainingJob) -> int:
    """Wait until Spark has room for the workers; return their number."""
    cluster = job.config.cluster
    facts = wait_for_slots(
        job.spark,
        cluster.num_workers,
        timeout_s=cluster.start_timeout_s,
        busy_timeout_s=cluster.busy_timeout_s,
        resources=_resources(job),
    )
    return choose_num_workers(cluster.num_workers, facts)


def _resources(job: TrainingJob) -> WorkerResources:
    cluster = job.config.cluster
    return WorkerResources(cores=cluster.cores_per_worker, gpus=cluster.gpus_per_worker)


def initial_weights(init_from: str | None, runs: str) -> str:
    """Return the file of the weights to start from, empty for none.

    Args:
        init_from: a run id, ``latest``, the folder of an exported version, or a file.
        runs: folder of run directories.

    Raises:
        ModelError: there is no such run or version.
        ConfigError: there is no such file.
    """
    if init_from is None:
        return ""
    if init_from.endswith(_WEIGHT_FILES):
        path = normalise(init_from)
    else:
        path = join(resolve_model(init_from, runs=runs).path, "model.keras")
    if not Storage(path).exists(path):
        msg = f"init_from: there is no file {path}"
        raise ConfigError(msg)
    return path


def _task(job: TrainingJob) -> TrainTask:
    """Return what each rank is told to train."""
    training = job.config.training
    return TrainTask(
        model_fn=job.model_fn,
        params=job.params,
        train_fn=job.train_fn,
        callbacks=job.callbacks,
        init_from=initial_weights(job.init_from, job.paths.runs),
        dataset=job.dataset.path,
        paths=job.paths,
        epochs=training.epochs,
        global_batch_size=training.global_batch_size,
        seed=training.seed,
        shuffle=training.shuffle,
        remainder=training.remainder,
        log_every_steps=training.log_every_steps,
        checkpoint=training.checkpoint,
        storage=job.config.storage,
        steps_per_epoch=training.steps_per_epoch,
        class_weight=training.class_weight,
        learning_rate=training.learning_rate,
        validation=training.validation,
        check_numerics=training.check_numerics,
        board=Board(
            histograms_every_epochs=job.config.tensorboard.histograms_every_epochs,
            profile_steps=job.config.tensorboard.profile_steps,
            job=job.config.to_yaml(),
        ),
        ports=job.config.cluster.port_range,
        fingerprint=job.dataset.manifest.fingerprint,
    )


def _timeouts(cluster: ClusterConfig) -> Timeouts:
    return Timeouts(
        start_s=cluster.start_timeout_s,
        stop_s=cluster.stop_timeout_s,
        heartbeat_s=cluster.heartbeat_s,
        lost_s=cluster.lost_after_s,
    )


def _restarts(cluster: ClusterConfig) -> RestartPolicy:
    return RestartPolicy(
        max_restarts=cluster.max_restarts,
        per_hour=cluster.restarts_per_hour,
        backoff_s=cluster.restart_backoff_s,
        on_stall=cluster.restart_on_stall,
    )


def _request(
    job: TrainingJob, num_workers: int, progress: Progress, record: Record, presence: Presence
) -> LaunchRequest:
    """Return what the cluster is to run."""
    cluster = job.config.cluster

    def on_event(rank: int, event: Mapping[str, Any]) -> None:
        if event.get("kind") == "progress":
            record.running()
            fields = {name: value for name, value in event.items() if name != "kind"}
            progress.update(ProgressEvent(rank=rank, **fields))

    def on_restart(attempt: int, error: Exception) -> None:
        progress.announce(f"attempt {attempt} follows: {str(error).partition(chr(10))[0]}")
        record.restarting(attempt)

    def on_log(rank: int, host: str, line: str) -> None:
        worker_logger.info("[rank %d on %s] %s", rank, host, line)

    return LaunchRequest(
        function=run_rank,
        value=_task(job),
        num_workers=num_workers,
        resources=_resources(job),
        name=job.paths.run_id,
        title=f"train {short_name(job.dataset.path)}",
        preload=PRELOAD,
        noise=NOISE,
        timeouts=_timeouts(cluster),
        attempt=record.status.attempt,
        restarts=_restarts(cluster),
        stall_after_s=cluster.stall_after_s,
        stall_timeout_s=cluster.stall_timeout_s,
        slow_after_s=cluster.slow_after_s,
        ports=cluster.port_range,
        on_restart=on_restart,
        on_cancel=record.failed,
        make_room=lambda check_stop: wait_for_room(
            job.spark,
            num_workers,
            timeout_s=cluster.start_timeout_s,
            busy_timeout_s=cluster.busy_timeout_s,
            resources=_resources(job),
            check_stop=check_stop,
        ),
        describe_room=lambda: describe_slots(job.spark, _resources(job)),
        on_event=on_event,
        on_log=on_log,
        stop_reason=presence.stop_reason,
        shared_folder=job.paths.root,
    )

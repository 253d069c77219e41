"""One frozen model for each section of the YAML: each knob has an owner, a default, a reason."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from spark_dl.config.base import Flag, Params, PositiveInt, PositiveSeconds, Section, Text
from spark_dl.config.checkpoint import CheckpointConfig
from spark_dl.config.schedule import LearningRateConfig, ValidationConfig
from spark_dl.ports import PortRange

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Backend",
    "ClusterConfig",
    "DatasetConfig",
    "FeatureConfig",
    "ModelConfig",
    "TableConfig",
    "TableFormat",
    "TensorBoardConfig",
    "TrainingConfig",
]

Backend = Literal["auto", "tensorflowonspark", "barrier"]
TableFormat = Literal["delta", "parquet"]

_FN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_HIGHEST_PORT = 65535
_PREFIX = re.compile(r"/(?:[\w.~/-]|\{port\})*")
_HIGHEST_CLASS = 10**6


class TableConfig(Section):
    """``table``: the rows to read; exactly one of `path`, `name` and `sql` says where they are.

    Attributes:
        path: folder of the table.
        name: its name in the catalog, such as ``catalog.schema.table``.
        sql: a query.
        format: format of the table at `path`. Delta by default, because its versions make a dataset
            repeatable.
        version: Delta version to read. By default the newest, pinned and recorded when the table is
            read.
        where: SQL condition that rows must meet; by default all rows are taken.

    Example:
        >>> TableConfig(path="/data/digits").format
        'delta'
    """

    path: Text | None = None
    name: Text | None = None
    sql: Text | None = None
    format: TableFormat = "delta"
    version: Annotated[int, Field(strict=True, ge=0)] | None = None
    where: Text | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [key for key in ("path", "name", "sql") if getattr(self, key) is not None]
        if len(given) != 1:
            msg = f"expected exactly one of path, name and sql, got {' and '.join(given) or 'none'}"
            raise ValueError(msg)
        if self.version is not None and (self.sql is not None or self.format != "delta"):
            source = "a query" if self.sql is not None else f"a {self.format} table"
            msg = f"{source} has no versions; remove `version` or read a Delta table"
            raise ValueError(msg)
        return self


class FeatureConfig(Section):
    """One entry of ``features``: how a column becomes a model input.

    Attributes:
        column: the table's column; by default the one named as the input.
        shape: shape of one row's tensor without the batch dimension; by default derived from the
            column's type.
        dtype: element type that the model sees; by default the column's.
        cast: Spark SQL element type to cast to first, accepting what is lost; by default nothing is
            cast.
    """

    column: Text
    shape: tuple[PositiveInt | None, ...] | None = None
    dtype: Text | None = None
    cast: Text | None = None


class DatasetConfig(Section):
    """``dataset``: the TFRecord shards that `prepare` writes and `train` reads.

    Attributes:
        path: folder of the dataset, on storage that driver and executors share.
        splits: fraction of the rows in each split; they sum to 1. By default a tenth each is kept
            for validation and for the test.
        split_column: column of the table that says each row's split instead: its name, or a
            boolean, true for ``validation`` and false for ``train``. By default the hash decides.
        seed: seed of the hash that gives each row its split. A constant, so that a rerun splits
            alike.
        rows_per_record: rows that are packed into a record; `None` goes by their size, 1 writes a
            record a row.
    """

    path: Text
    splits: dict[str, float] = Field(
        default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1}
    )
    split_column: Text | None = None
    seed: Annotated[int, Field(strict=True)] = 0
    rows_per_record: Annotated[int, Field(strict=True, ge=1)] | None = None

    @field_validator("splits")
    @classmethod
    def _fractions(cls, splits: dict[str, float]) -> dict[str, float]:
        negative = [name for name, fraction in splits.items() if not 0 <= fraction <= 1]
        if negative:
            msg = f"fractions lie between 0 and 1; change {', '.join(negative)}"
            raise ValueError(msg)
        total = math.fsum(splits.values())
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            msg = f"the fractions sum to {total:g}, expected 1"
            raise ValueError(msg)
        return splits


class ModelConfig(Section):
    """``model``: what to train.

    Attributes:
        fn: ``"package.module:function"``, importable on driver and executors; it is called with the
            feature spec and `params` and returns a compiled Keras model.
        train_fn: instead of `fn`: ``"package.module:function"`` of a training loop of one's own.
        params: what `fn` gets besides the spec; empty by default.
        callbacks: ``"package.module:function"``; it is called with the rank (``rank``,
            ``world_size``, ``is_chief``, ``paths``, ``params``) and returns Keras callbacks. None
            by default.
        init_from: weights to start from: a run id, ``latest``, the path of an exported version, or
            of a ``.keras`` or ``.weights.h5`` file; by default the model's own initial ones.
    """

    fn: Text | None = None
    train_fn: Text | None = None
    params: Params = Field(default_factory=dict)
    callbacks: Text | None = None
    init_from: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_ready_made(cls, values: Any) -> Any:  # noqa: ANN401 (pydantic hands over what the user wrote)
        if isinstance(values, dict) and "name" in values:
            msg = (
                f"name: {values['name']!r}: this version has no ready-made models; "
                'give fn: "package.module:function" instead'
            )
            raise ValueError(msg)
        return values

    @field_validator("fn", "train_fn", "callbacks")
    @classmethod
    def _module_and_function(cls, fn: str | None) -> str | None:
        if fn is not None and not _FN.fullmatch(fn):
            msg = f'expected "package.module:function", got {fn!r}'
            raise ValueError(msg)
        return fn

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.fn is None) == (self.train_fn is None):
            msg = "give either fn, a function that returns a model, or train_fn, a loop of your own"
            raise ValueError(msg)
        if self.train_fn is not None and (self.callbacks or self.init_from):
            msg = "callbacks and init_from need fn: a train_fn does that itself"
            raise ValueError(msg)
        return self


class TrainingConfig(Section):
    """``training``: how to train.

    Attributes:
        epochs: passes over the training split. One by default, which is what a first try wants.
        global_batch_size: rows of one step over all workers together, so that the result does not
            depend on their number; must be divisible by it. 32 as in Keras.
        seed: seed of weights, shuffling and dropout, below 2**32 as NumPy and Keras want it. A
            constant, so that a rerun learns the same.
        shuffle: whether each epoch has an order of its own; on, as stochastic gradient descent
            wants it.
        remainder: what happens to rows that fill no whole step: ``drop`` leaves them out of that
            epoch (when
            shuffled: others each time), ``pad`` fills the step up with rows of weight 0. ``drop``
                is the default,
            because it leaves every step's mean as it is.
        log_every_steps: steps between two lines of progress and metrics; 50 costs nothing that can
            be measured.
        checkpoint: when the run's state is saved, see `CheckpointConfig`.
        steps_per_epoch: steps that make an epoch, for splits whose pass takes hours, or a moment;
            by default one pass over the split. The next epoch goes on where the last one ended.
        class_weight: factor of the loss of each class's rows, by the label's number; classes that
            are not named weigh 1. By default all weigh alike.
        learning_rate: scale and warm-up of the model's learning rate, see `LearningRateConfig`.
        validation: when to validate, see `ValidationConfig`.
        check_numerics: whether every operation is checked for NaN and infinity, so that the first
            one that makes them is named, with its layer; off, because steps take several times as
            long.
    """

    epochs: PositiveInt = 1
    global_batch_size: PositiveInt = 32
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    shuffle: Flag = True
    remainder: Literal["drop", "pad"] = "drop"
    log_every_steps: PositiveInt = 50
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    steps_per_epoch: PositiveInt | None = None
    class_weight: dict[int, Annotated[float, Field(ge=0)]] | None = None
    learning_rate: LearningRateConfig = Field(default_factory=LearningRateConfig)
    validation: ValidationConfig = Field(default_factory=ValidationConfig)
    check_numerics: Flag = False

    @field_validator("class_weight")
    @classmethod
    def _classes(cls, weights: dict[int, float] | None) -> dict[int, float] | None:
        negative = [label for label in weights or {} if not 0 <= label <= _HIGHEST_CLASS]
        if negative:
            msg = f"classes are numbers from 0 to {_HIGHEST_CLASS}, got {negative[0]}"
            raise ValueError(msg)
        return weights


class ClusterConfig(Section):
    """``cluster``: where to train.

    Attributes:
        backend: ``tensorflowonspark``, ``barrier``, or ``auto``: the first where its conditions
            hold, else the second; one log line says which and why.
        num_workers: training processes; by default one for each free task slot.
        cores_per_worker: CPU cores of a worker, by stage-level scheduling; set it to the cores of
            an executor to have one worker each. By default ``spark.task.cpus``, which then holds
            for every job of the application.
        gpus_per_worker: GPUs of a worker, likewise; by default ``spark.task.resource.gpu.amount``.
        start_timeout_s: seconds until all workers must have reported. Executors import TensorFlow
            meanwhile, which takes seconds, a cold node more. After a loss also how long another
            executor may take to come, once Spark has missed the one that was lost.
        busy_timeout_s: seconds that slots which other tasks hold may take to become free. 10,
            because tasks of a run that has just been stopped end within seconds; more where the
            training shall wait for other work.
        stop_timeout_s: seconds that workers get to end by themselves before they are killed.
        heartbeat_s: seconds between two signs of life of a worker.
        lost_after_s: seconds without a sign of life after which a worker counts as lost, and
            after which a worker that does not hear the driver ends; eight heartbeats, so that a
            busy host is no death.
        max_restarts: how often a run that lost a worker goes on from its newest checkpoint by
            itself; enough for days on hosts that come and go. 0 for never.
        restarts_per_hour: how often within an hour; more is no bad luck.
        restart_backoff_s: seconds before a restart; they double, up to a minute, while no step is
            made between two.
        stall_after_s: seconds without progress after which the workers that hold the others up are
            named, with their stacks; 300, longer than a slow step. `None` for never.
        stall_timeout_s: seconds without progress of any worker after which the run ends, as one
            that may be started again, so that none hangs for ever. 1800, more than a step, the copy
            of the first shards or an export takes; `None` for never.
        restart_on_stall: whether workers that stand still for `stall_after_s` are started again; by
            default the run waits on, because a step may just take that long.
        slow_after_s: seconds after which a worker whose own part of a step takes more than twice as
            long as the others' is named, with its stack; 60, longer than a neighbour's short job.
            `None` for never. On GPUs this is not measured.
        ports: a range such as ``40000-40010`` in which all ports of a run lie: TensorFlow's, the
            control channel's and TensorBoard's (unless ``tensorboard.port`` names one); for
            firewalls. By default any free ones.
        require_encryption: refuse to train, because TensorFlow's traffic between the workers is not
            encrypted; for sites whose rules want that said by the program, not found by an auditor.
            Off by default.
    """

    backend: Backend = "auto"
    num_workers: PositiveInt | None = None
    cores_per_worker: PositiveInt | None = None
    gpus_per_worker: PositiveInt | None = None
    start_timeout_s: PositiveSeconds = 120.0
    busy_timeout_s: PositiveSeconds = 10.0
    stop_timeout_s: PositiveSeconds = 30.0
    heartbeat_s: PositiveSeconds = 1.0
    lost_after_s: PositiveSeconds = 8.0
    max_restarts: Annotated[int, Field(strict=True, ge=0)] = 20
    restarts_per_hour: PositiveInt = 10
    restart_backoff_s: PositiveSeconds = 1.0
    stall_after_s: PositiveSeconds | None = 300.0
    stall_timeout_s: PositiveSeconds | None = 1800.0
    restart_on_stall: Flag = False
    slow_after_s: PositiveSeconds | None = 60.0
    ports: Text | None = None
    require_encryption: Flag = False

    @property
    def port_range(self) -> PortRange | None:
        """The parsed `ports`."""
        return PortRange.parse(self.ports) if self.ports is not None else None

    @field_validator("ports")
    @classmethod
    def _is_range(cls, ports: str | None) -> str | None:
        if ports is not None:
            PortRange.parse(ports)
        return ports

    @model_validator(mode="after")
    def _patience(self) -> Self:
        if self.lost_after_s <= self.heartbeat_s:
            msg = (
                f"lost_after_s ({self.lost_after_s:g}) must be more than heartbeat_s "
                f"({self.heartbeat_s:g}), or every worker counts as lost"
            )
            raise ValueError(msg)
        return self


class TensorBoardConfig(Section):
    """``tensorboard``: the board on the driver; ``keep`` alone is short for ``{keep: true}``.

    Attributes:
        enabled: whether it starts; on, because watching is why people ask.
        host: address that it is bound to. Loopback by default: it has no password.
        port: its port; 0 takes a free one, so that two runs do not collide.
        keep: whether it stays up after training; off, so that a job ends.
        path_prefix: path under which it answers, for a proxy that passes the whole path on, such as
            ``/proxy/absolute/{port}``; ``{port}`` stands for its port. By default ``/``, which is
            right for proxies that take their own prefix off.
        public_url: its address as users see it, such as ``https://hub/user/me/proxy/{port}/``, to
            be printed; by default its own, or a tunnel's where the driver is elsewhere.
        histograms_every_epochs: epochs between two histograms of the weights; none by default: a
            big model's take room.
        profile_steps: first and last step, counted from 1 over the run, of which the chief writes
            a profile; by default none is profiled.
    """

    enabled: Flag = True
    host: Text = "127.0.0.1"
    port: Annotated[int, Field(strict=True, ge=0, le=_HIGHEST_PORT)] = 0
    keep: Flag = False
    path_prefix: Text | None = None
    public_url: Text | None = None
    histograms_every_epochs: PositiveInt | None = None
    profile_steps: tuple[PositiveInt, PositiveInt] | None = None

    @field_validator("path_prefix")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        if path is not None and not _PREFIX.fullmatch(path):
            msg = f"expected a path such as /proxy/absolute/{{port}}, got {path!r}"
            raise ValueError(msg)
        return path

    @field_validator("profile_steps")
    @classmethod
    def _in_order(cls, steps: tuple[int, int] | None) -> tuple[int, int] | None:
        if steps is not None and steps[0] > steps[1]:
            msg = f"expected the first step and the last, got {list(steps)}"
            raise ValueError(msg)
        return steps

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, values: Any) -> Any:  # noqa: ANN401 (pydantic hands over what the user wrote)
        return {"keep": True} if values == "keep" else values

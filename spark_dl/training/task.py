"""What a rank is told to train: one frozen, picklable value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spark_dl.config import (
    CheckpointConfig,
    LearningRateConfig,
    StorageConfig,
    ValidationConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spark_dl.ports import PortRange
    from spark_dl.storage import RunPaths

__all__ = ["Board", "TrainTask"]


@dataclass(frozen=True, kw_only=True)
class Board:
    """What the chief writes for TensorBoard besides curves and graph.

    Attributes:
        histograms_every_epochs: epochs between two histograms of the weights; `None` for none.
        profile_steps: first and last step of a profile, counted from 1 over the run; `None` for
            none.
        job: the job's config as YAML, shown as a text; empty for none.
    """

    histograms_every_epochs: int | None = None
    profile_steps: tuple[int, int] | None = None
    job: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """One training run.

    Attributes:
        model_fn: ``model_fn(spec, params) -> compiled keras.Model``, or
            ``"package.module:function"``; `None` where there is a `train_fn`.
        train_fn: a loop of the user's own, ``train_fn(ctx) -> keras.Model | None``, itself or as
            ``"package.module:function"``; see `spark_dl.training.own_loop.OwnLoop`.
        params: passed to `model_fn`.
        dataset: folder of the dataset.
        paths: where the run writes.
        epochs: number of passes over the training split.
        global_batch_size: rows of one step over all ranks together.
        seed: decides initial weights, row order and the ranks' random layers.
        shuffle: whether the rows are met in another order each epoch.
        remainder: ``drop`` the last incomplete batch of an epoch, or ``pad`` it with rows of weight
            0.
        log_every_steps: distance of the step records in `metrics.jsonl` and TensorBoard.
        train_split: name of the split to train on.
        validation_split: name of the split to validate on; `None` or an empty split for none.
        callbacks: the user's Keras callbacks, or a function of a `training.user.Rank` that makes
            them, itself or as ``"package.module:function"``.
        init_from: file of the weights to start from, `.keras` or `.weights.h5`; empty for none.
        checkpoint: when the run's state is saved.
        storage: where a host keeps copies of remote shards.
        steps_per_epoch: steps that make an epoch; `None`: one pass over the training split.
        class_weight: factor of the loss of each class's rows, by the label's number.
        learning_rate: scale and warm-up of the model's learning rate.
        validation: when to validate.
        check_numerics: whether the first operation that makes a NaN or an infinity is named.
        board: what TensorBoard gets besides curves and graph.
        ports: where the ranks' own ports must lie; `None`: anywhere.
        version: version number of the exported model.
        fingerprint: the dataset's fingerprint.
    """

    model_fn: Callable[..., Any] | str | None = None
    train_fn: Callable[..., Any] | str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    dataset: str
    paths: RunPaths
    epochs: int = 1
    global_batch_size: int = 32
    seed: int = 0
    shuffle: bool = True
    remainder: str = "drop"
    log_every_steps: int = 50
    train_split: str = "train"
    validation_split: str | None = "validation"
    callbacks: Any = None
    init_from: str = ""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    steps_per_epoch: int | None = None
    class_weight: Mapping[int, float] | None = None
    learning_rate: LearningRateConfig = field(default_factory=LearningRateConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    check_numerics: bool = False
    board: Board = field(default_factory=Board)
    ports: PortRange | None = None
    version: int = 1
    fingerprint: str = ""

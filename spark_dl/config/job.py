"""The whole YAML: one file describes the flow, each job reads its part."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field

from spark_dl.config.base import EXPONENT, Section, Text
from spark_dl.config.scoring import InferConfig, OutputConfig
from spark_dl.config.sections import (
    ClusterConfig,
    DatasetConfig,
    FeatureConfig,
    ModelConfig,
    TableConfig,
    TensorBoardConfig,
    TrainingConfig,
)
from spark_dl.config.storage import StorageConfig
from spark_dl.errors import ConfigError

__all__ = ["JobConfig", "JobName", "required"]

JobName = Literal["prepare", "train", "infer", "evaluate"]
T = TypeVar("T")


def _features(values: Any) -> Any:  # noqa: ANN401 (pydantic hands over what the user wrote)
    """Bring all ways to write features into the longest: input name → column and so on."""
    if isinstance(values, list):
        if not values or not all(isinstance(value, str) for value in values):
            msg = f"expected a list of column names or a mapping of inputs, got {values!r}"
            raise ValueError(msg)
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            msg = f"columns are named twice: {', '.join(twice)}"
            raise ValueError(msg)
        return {value: {"column": value} for value in values}
    if isinstance(values, dict):
        return {name: _feature(str(name), value) for name, value in values.items()}
    return values


def _feature(name: str, value: Any) -> Any:  # noqa: ANN401 (pydantic hands over what the user wrote)
    if value is None or isinstance(value, str):
        return {"column": value or name}
    return {"column": name, **value} if isinstance(value, dict) else value


def _ids(values: Any) -> Any:  # noqa: ANN401 (pydantic hands over what the user wrote)
    return [values] if isinstance(values, str) else values


Features = Annotated[
    dict[str, FeatureConfig],
    BeforeValidator(
        _features, json_schema_input_type=list[str] | dict[str, str | FeatureConfig | None]
    ),
]
Ids = Annotated[tuple[Text, ...], BeforeValidator(_ids, json_schema_input_type=str | list[str])]


class JobConfig(Section):
    """Everything that the jobs can be told.

    Attributes:
        table: the rows to prepare, and to score.
        features: model inputs: input name → column and how it is taken. A list of columns is short
            for inputs of the same names.
        label: column of the label; `None` for none.
        weight: column of the sample weight; `None` weighs all rows alike.
        id: columns that identify a row; by default a row is told from others by all its columns.
        dataset: the shards.
        model: what to train.
        training: how.
        cluster: where.
        tensorboard: the board on the driver.
        storage: what hosts keep of remote files.
        runs: folder of run directories.
        run_id: name of this run; by default a new one is made. `prepare` and `infer` keep their
            record beside it, as ``prepare-<run_id>`` and ``infer-<run_id>``.
        infer: what to score with what.
        output: the table of predictions.

    Example:
        >>> JobConfig(features=["a"], label="b").features["a"].column
        'a'
    """

    table: TableConfig | None = None
    features: Features | None = None
    label: Text | None = None
    weight: Text | None = None
    id: Ids | None = None
    dataset: DatasetConfig | None = None
    model: ModelConfig | None = None
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    tensorboard: TensorBoardConfig = Field(default_factory=TensorBoardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    runs: Text | None = None
    run_id: Text | None = None
    infer: InferConfig = Field(default_factory=InferConfig)
    output: OutputConfig | None = None

    def check_for(self, job: JobName) -> None:
        """Check that everything that a job needs is there, before Spark starts.

        Raises:
            ConfigError: sections are missing; all of them are named.
        """
        missing = [name for name in _NEEDS[job] if getattr(self, name) is None]
        scores = job in ("infer", "evaluate")
        if scores and self.table is None and self.infer.table is None:
            missing.append("table (or infer.table)")
        if scores and self.infer.split is not None and self.dataset is None:
            missing.append("dataset (its splits tell the rows of infer.split apart)")
        if missing:
            msg = (
                f"`{job}` needs {', '.join(missing)}: add it to the config, or --set <key>=<value>"
            )
            raise ConfigError(msg)

    def to_yaml(self) -> str:
        """Return the config with all defaults filled in, as a YAML that loads again."""
        text: str = yaml.dump(self.model_dump(), Dumper=_Dumper, sort_keys=False)
        return text


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `load_config` would take for numbers."""


_Dumper.add_implicit_resolver(*EXPONENT)


_NEEDS: dict[str, tuple[str, ...]] = {
    "prepare": ("table", "features", "dataset"),
    "train": ("dataset", "model", "runs"),
    "infer": ("runs", "output"),
    "evaluate": ("runs",),
}


def required(value: T | None, section: str, *, job: str) -> T:
    """Return a section that a job needs.

    Raises:
        ConfigError: it is not in the config.

    Example:
        >>> required(5, "training", job="train")
        5
    """
    if value is None:
        msg = f"`{job}` needs the section `{section}`: add it to the config"
        raise ConfigError(msg)
    return value

"""What users write: one frozen model for each section of the YAML, and the job that holds them."""

from spark_dl.config.base import Section, build
from spark_dl.config.checkpoint import CheckpointConfig
from spark_dl.config.job import JobConfig, JobName, required
from spark_dl.config.loading import json_schema, load_config
from spark_dl.config.schedule import LearningRateConfig, ValidationConfig
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

__all__ = [
    "CheckpointConfig",
    "ClusterConfig",
    "DatasetConfig",
    "FeatureConfig",
    "InferConfig",
    "JobConfig",
    "JobName",
    "LearningRateConfig",
    "ModelConfig",
    "OutputConfig",
    "Section",
    "StorageConfig",
    "TableConfig",
    "TensorBoardConfig",
    "TrainingConfig",
    "ValidationConfig",
    "build",
    "json_schema",
    "load_config",
    "required",
]

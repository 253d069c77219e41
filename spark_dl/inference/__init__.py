"""Batch inference: a table and a model in, a table with predictions out."""

from spark_dl.inference.apply import LINEAGE_COLUMNS, predict
from spark_dl.inference.foreign import open_any
from spark_dl.inference.model import ExportedModel, ModelOutput, open_model
from spark_dl.inference.resolve import ModelRef, resolve_model
from spark_dl.inference.scoring import default_scoring_id, random_scoring_id
from spark_dl.inference.task_errors import task_error

__all__ = [
    "LINEAGE_COLUMNS",
    "ExportedModel",
    "ModelOutput",
    "ModelRef",
    "default_scoring_id",
    "open_any",
    "open_model",
    "predict",
    "random_scoring_id",
    "resolve_model",
    "task_error",
]

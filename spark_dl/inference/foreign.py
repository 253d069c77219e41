"""Models that no run of ours exported: an executor, which has TensorFlow, says what they take.

Driver side.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator  # noqa: TC003 - Spark reads the annotations of the task's functions
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from spark_dl._jvm import brief_cause, spark_errors
from spark_dl.errors import ModelError
from spark_dl.inference.inputs import ModelInput, element_for
from spark_dl.inference.loading import Compute, ModelFile, load_model
from spark_dl.inference.model import ExportedModel, ModelOutput, model_kind, open_model
from spark_dl.inference.task_errors import task_error
from spark_dl.storage import normalise
from spark_dl.storage.checksum import file_checksum, folder_checksum

if TYPE_CHECKING:
    import os

    from pyspark.sql import SparkSession

__all__ = ["describe", "open_any"]

logger = logging.getLogger(__name__)


class _Tensor(BaseModel):
    """One input or output as TensorFlow describes it; `shape` with the batch dimension."""

    model_config = ConfigDict(frozen=True)

    dtype: str
    shape: tuple[int | None, ...] | None


def open_any(
    path: str | os.PathLike[str], spark: SparkSession, *, allow_lambda: bool = False
) -> ExportedModel:
    """Open a model of any kind.

    Args:
        path: folder of an exported version or of a SavedModel, or a ``.keras`` file.
        spark: the session; a small task of it describes a model that is not ours.
        allow_lambda: whether a ``.keras`` file may hold Lambda layers, which are code.

    Raises:
        ModelError: there is no model, it cannot be loaded, or a table cannot give what it takes.
    """
    root = normalise(path)
    kind = model_kind(root)
    if kind == "exported":
        return open_model(root)
    checksum = file_checksum(root) if kind == "keras" else folder_checksum(root)
    file = ModelFile(path=root, checksum=checksum, kind=kind, allow_lambda=allow_lambda)
    found = _ask(spark, file)
    inputs, outputs = _inputs(found["inputs"], root), _outputs(found["outputs"], root)
    logger.info(
        "%s takes %s and gives %s",
        root,
        ", ".join(f"{one.name} {one.dtype}{list(one.shape)}" for one in inputs),
        ", ".join(f"{name} {one.dtype}{list(one.shape)}" for name, one in outputs.items()),
    )
    return ExportedModel(
        path=root,
        kind=kind,
        checksum=checksum,
        inputs=inputs,
        outputs=outputs,
        allow_lambda=allow_lambda,
    )


def _ask(spark: SparkSession, file: ModelFile) -> dict[str, dict[str, _Tensor]]:
    def answer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                facts = json.dumps(describe(file))
                yield pa.RecordBatch.from_arrays([pa.array([facts])], ["facts"])

    function: Any = answer  # pyspark's annotations say Iterable
    try:
        rows = spark.range(0, 1, 1, 1).mapInArrow(function, "facts string").collect()
    except spark_errors() as error:
        ours = task_error(error)
        if ours is not None:
            raise ours from error
        msg = f"the model at {file.path} could not be looked at: {brief_cause(error)}"
        raise ModelError(msg) from error
    facts = json.loads(rows[0]["facts"])
    return {
        side: {name: _Tensor.model_validate(value) for name, value in facts[side].items()}
        for side in ("inputs", "outputs")
    }


def describe(file: ModelFile) -> dict[str, dict[str, Any]]:
    """Return a model's inputs and outputs, each name to dtype and shape. Needs TensorFlow.

    They are in the order of their names, because a SavedModel keeps none.

    Raises:
        ModelError: the model cannot be loaded.
    """
    model = load_model(file, Compute())

    def facts(specs: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - TensorFlow's
        return {
            name: {
                "dtype": spec.dtype.name,
                "shape": None if spec.shape.rank is None else spec.shape.as_list(),
            }
            for name, spec in sorted(specs.items())
        }

    return {"inputs": facts(model.inputs), "outputs": facts(model.outputs)}


def _inputs(found: dict[str, _Tensor], path: str) -> tuple[ModelInput, ...]:
    inputs = []
    for name, tensor in found.items():
        what = f"the model at {path}: input {name!r}"
        if tensor.shape is None or not tensor.shape:
            msg = f"{what} has no batch dimension: export it with a signature of known rank"
            raise ModelError(msg)
        if tensor.shape[0] is not None:
            msg = (
                f"{what} takes batches of {tensor.shape[0]} rows only: "
                "export it with a batch dimension of None"
            )
            raise ModelError(msg)
        if None in tensor.shape[2:]:
            msg = f"{what} has shape {list(tensor.shape)}: only the first dimension may vary"
            raise ModelError(msg)
        element_for(tensor.dtype)
        inputs.append(
            ModelInput(name=name, dtype=tensor.dtype, shape=tensor.shape[1:], columns=(name,))
        )
    return tuple(inputs)


def _outputs(found: dict[str, _Tensor], path: str) -> dict[str, ModelOutput]:
    outputs = {}
    for name, tensor in found.items():
        if not tensor.shape:
            msg = f"the model at {path}: output {name!r} has no batch dimension"
            raise ModelError(msg)
        try:
            outputs[name] = ModelOutput(dtype=tensor.dtype, shape=tensor.shape[1:])
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            msg = f"the model at {path}: output {name!r}: {reason}"
            raise ModelError(msg) from error
    return outputs

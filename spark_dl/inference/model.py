"""An exported model's folder, as the driver reads it.

No TensorFlow is needed to know what a model takes and gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from spark_dl.errors import ModelError, SchemaError
from spark_dl.schema import FeatureSpec
from spark_dl.storage import Storage, join, normalise
from spark_dl.storage.checksum import MODEL_FILE, folder_checksum

if TYPE_CHECKING:
    import os

__all__ = ["OUTPUT_TYPES", "SPEC_FILE", "ExportedModel", "ModelOutput", "open_model"]

SPEC_FILE: Final = "feature_spec.json"
_GRAPH_FILE: Final = "saved_model.pb"

#: What a model's output becomes in a table, by TensorFlow's dtype: (Spark type, numpy dtype).
#: Only widening; TensorFlow's strings are taken as UTF-8 text.
OUTPUT_TYPES: Final[dict[str, tuple[str, str]]] = {
    "float16": ("float", "float32"),
    "bfloat16": ("float", "float32"),
    "float32": ("float", "float32"),
    "float64": ("double", "float64"),
    "int8": ("tinyint", "int8"),
    "uint8": ("smallint", "int16"),
    "int16": ("smallint", "int16"),
    "uint16": ("int", "int32"),
    "int32": ("int", "int32"),
    "uint32": ("bigint", "int64"),
    "int64": ("bigint", "int64"),
    "bool": ("boolean", "bool"),
    "string": ("string", "object"),
}


class ModelOutput(BaseModel):
    """One output of a model.

    Attributes:
        dtype: TensorFlow's name of its dtype, a key of `OUTPUT_TYPES`.
        shape: shape of one row's tensor, without the batch dimension; `None` is a variable
            dimension.
    """

    model_config = ConfigDict(frozen=True)

    dtype: str
    shape: tuple[int | None, ...] = ()

    @field_validator("dtype")
    @classmethod
    def _known(cls, dtype: str) -> str:
        if dtype not in OUTPUT_TYPES:
            known = ", ".join(OUTPUT_TYPES)
            msg = f"dtype {dtype!r} has no Spark type (known: {known}); cast it in the model"
            raise ValueError(msg)
        return dtype

    @property
    def dims(self) -> tuple[int | None, ...]:
        """The shape as a table holds it: a vector of one element is a scalar."""
        return () if self.shape == (1,) else self.shape

    @property
    def spark_type(self) -> str:
        """The Spark SQL type of the prediction column."""
        kind = OUTPUT_TYPES[self.dtype][0]
        for _ in self.dims:
            kind = f"array<{kind}>"
        return kind


class _ModelFile(BaseModel):
    """`model.json` as far as inference needs it."""

    run_id: str
    version: int
    checksum: str
    outputs: dict[str, ModelOutput]


class ExportedModel(BaseModel):
    """One exported model version.

    Attributes:
        path: its folder: a SavedModel with ``feature_spec.json`` and ``model.json`` in it.
        run_id: the run that made it.
        version: number of the export within the run.
        checksum: checksum of the folder, verified.
        spec: the columns that the model was trained on.
        outputs: the model's outputs by name, in order.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    run_id: str
    version: int
    checksum: str
    spec: FeatureSpec
    outputs: dict[str, ModelOutput]

    def output_columns(self, prefix: str = "prediction") -> dict[str, str]:
        """Return each output's column: `prefix`, or ``<prefix>_<output>`` of several."""
        if len(self.outputs) == 1:
            return dict.fromkeys(self.outputs, prefix)
        return {name: f"{prefix}_{name}" for name in self.outputs}


def open_model(path: str | os.PathLike[str]) -> ExportedModel:
    """Read an exported model's description and check that the folder is what the export wrote.

    Args:
        path: the folder of one version, such as `Run.model_path`; driver and executors must reach
            it.

    Raises:
        ModelError: there is no such folder, a part is missing or unreadable, or the content is not
            the one that was exported (checksum).
    """
    root = normalise(path)
    storage = Storage(root)
    if not storage.exists(root):
        msg = f"no model at {root}: there is no such folder"
        raise ModelError(msg)
    missing = [n for n in (_GRAPH_FILE, SPEC_FILE, MODEL_FILE) if not storage.exists(join(root, n))]
    if missing:
        msg = (
            f"{root} is not an exported model: {', '.join(missing)} missing; expected the folder "
            "of one version, "
            f"such as <runs>/<run_id>/model/1 (found: {', '.join(storage.list(root)) or 'nothing'})"
        )
        raise ModelError(msg)
    info, spec = _descriptions(storage, root)
    actual = folder_checksum(root)
    if actual != info.checksum:
        msg = (
            f"the model at {root} is not the one that was exported: its checksum is {actual}, "
            f"{MODEL_FILE} says "
            f"{info.checksum}; export it again or restore the folder"
        )
        raise ModelError(msg)
    return ExportedModel(
        path=root,
        run_id=info.run_id,
        version=info.version,
        checksum=actual,
        spec=spec,
        outputs=info.outputs,
    )


def _descriptions(storage: Storage, root: str) -> tuple[_ModelFile, FeatureSpec]:
    try:
        info = _ModelFile.model_validate_json(storage.read_bytes(join(root, MODEL_FILE)))
        where = join(root, SPEC_FILE)
        spec = FeatureSpec.from_json(storage.read_bytes(where), where=where)
    except ValidationError as error:
        msg = f"{join(root, MODEL_FILE)} does not describe an exported model: {error}"
        raise ModelError(msg) from error
    except SchemaError as error:
        raise ModelError(str(error)) from error
    if not info.outputs:
        msg = f"{join(root, MODEL_FILE)} names no output"
        raise ModelError(msg)
    return info, spec

"""A model as the driver knows it; an exported one tells by its files what it takes and gives.

No TensorFlow is needed here; `foreign` asks an executor about models that are not ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from spark_dl.errors import ModelError, SchemaError
from spark_dl.inference.inputs import ModelInput, spec_inputs
from spark_dl.inference.loading import ModelFile, ModelKind
from spark_dl.schema import FeatureSpec
from spark_dl.storage import Storage, join, normalise
from spark_dl.storage.checksum import MODEL_FILE, folder_checksum

if TYPE_CHECKING:
    import os

__all__ = [
    "OUTPUT_TYPES",
    "SPEC_FILE",
    "ExportedModel",
    "ModelOutput",
    "model_kind",
    "open_model",
]

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
    def numpy_dtype(self) -> str:
        """The numpy dtype that holds it."""
        return OUTPUT_TYPES[self.dtype][1]

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
    dataset_fingerprint: str = ""
    from_logits: bool = False


class ExportedModel(BaseModel):
    """A model that can be served.

    Attributes:
        path: its folder, or its ``.keras`` file.
        kind: ``exported`` by a run of ours: a SavedModel with ``feature_spec.json`` and
            ``model.json`` in it; else ``saved_model`` or ``keras``.
        run_id: the run that made it; `None` of a model that is not ours.
        version: number of the export within the run; `None` of a model that is not ours.
        checksum: checksum of the folder or file; of an exported one it is verified.
        spec: the columns that it was trained on; without entries of a model that is not ours.
        inputs: what it takes.
        outputs: its outputs by name, in order.
        fingerprint: fingerprint of the dataset that it was trained on; empty if unknown.
        from_logits: whether its loss took logits.
        allow_lambda: whether its Lambda layers may run.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    kind: ModelKind = "exported"
    run_id: str | None = None
    version: int | None = None
    checksum: str
    spec: FeatureSpec = FeatureSpec(entries=())
    inputs: tuple[ModelInput, ...]
    outputs: dict[str, ModelOutput]
    fingerprint: str = ""
    from_logits: bool = False
    allow_lambda: bool = False

    @property
    def file(self) -> ModelFile:
        """What the executors are told of it."""
        return ModelFile(
            path=self.path,
            checksum=self.checksum,
            kind=self.kind,
            allow_lambda=self.allow_lambda,
        )

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """The labels by class, if the label was text."""
        return self.spec.label.vocabulary if self.spec.label else None

    def output_columns(self, prefix: str = "prediction") -> dict[str, str]:
        """Return each output's column: `prefix`, or ``<prefix>_<output>`` of several."""
        if len(self.outputs) == 1:
            return dict.fromkeys(self.outputs, prefix)
        return {name: f"{prefix}_{name}" for name in self.outputs}


def model_kind(path: str | os.PathLike[str]) -> ModelKind:
    """Return what kind of model lies at a path.

    Raises:
        ModelError: no model does; the message says what is there.
        StorageError: the storage cannot be reached from here.
    """
    root = normalise(path)
    storage = Storage(root)
    if not storage.exists(root):
        msg = f"no model at {root}: there is no such folder or file"
        raise ModelError(msg)
    if root.endswith(".keras"):
        return "keras"
    if root.endswith((".h5", ".hdf5", ".pkl", ".pickle", ".joblib", ".pt")):
        msg = (
            f"{root} is of a format that may hold code: load it where you trust it and save it "
            "with model.save('….keras') or model.export('folder')"
        )
        raise ModelError(msg)
    missing = [n for n in (_GRAPH_FILE, SPEC_FILE, MODEL_FILE) if not storage.exists(join(root, n))]
    if missing == [SPEC_FILE, MODEL_FILE]:
        return "saved_model"
    if missing:
        msg = (
            f"{root} is not an exported model: {', '.join(missing)} missing; expected the folder "
            "of one version, such as <runs>/<run_id>/model/1, a SavedModel or a .keras file "
            f"(found: {', '.join(storage.list(root)) or 'nothing'})"
        )
        raise ModelError(msg)
    return "exported"


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
    if model_kind(root) != "exported":
        msg = f"{root} was not exported by a run: {SPEC_FILE} and {MODEL_FILE} are missing"
        raise ModelError(msg)
    info, spec = _descriptions(Storage(root), root)
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
        inputs=spec_inputs(spec.features),
        outputs=info.outputs,
        fingerprint=info.dataset_fingerprint,
        from_logits=info.from_logits,
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

"""Export: a SavedModel with its signature by feature names, `.keras` and spec beside it.

Everything is written under a temporary name and renamed once complete; where it goes to a file
system that is not mounted, it is written on this host and uploaded, `model.json` last.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from spark_dl import __version__
from spark_dl.errors import ModelError
from spark_dl.schema import tensors
from spark_dl.storage import Storage, is_local, join, normalise
from spark_dl.storage.checksum import MODEL_FILE, folder_checksum
from spark_dl.storage.upload import publish_folder

if TYPE_CHECKING:
    from spark_dl.schema import FeatureSpec

__all__ = ["export_model", "takes_bare_input"]


def takes_bare_input(model: keras.Model, spec: FeatureSpec) -> bool:
    """Whether the model takes its single input bare instead of in a dict by feature name.

    Models with several inputs, and those declared with a dict, get a dict.
    """
    if len(spec.features) != 1:
        return False
    # a subclassed model declares no inputs: it gets what a single input most naturally is
    return not isinstance(getattr(model, "input", None), dict)


def _named_outputs(model: keras.Model, outputs: Any) -> dict[str, tf.Tensor]:  # noqa: ANN401 - any structure of tensors
    if isinstance(outputs, dict):
        return dict(outputs)
    if isinstance(outputs, (list, tuple)):
        names = getattr(model, "output_names", None) or [f"output_{i}" for i in range(len(outputs))]
        return dict(zip(names, outputs, strict=True))
    return {"output": outputs}


def _write_saved_model(
    model: keras.Model, spec: FeatureSpec, folder: str
) -> dict[str, dict[str, Any]]:
    bare = takes_bare_input(model, spec)
    inputs = {
        name: tf.TensorSpec([None, *shape], dtype, name=name)
        for name, (dtype, shape) in tensors.signature(spec).items()
    }

    def serve(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        x = next(iter(features.values())) if bare else features
        return _named_outputs(model, model(x, training=False))

    archive = keras.export.ExportArchive()
    archive.track(model)
    endpoint = archive.add_endpoint(name="serve", fn=serve, input_signature=[inputs])
    archive.write_out(folder, verbose=False)
    outputs = endpoint.get_concrete_function().structured_outputs
    return {
        name: {"dtype": o.dtype.name, "shape": o.shape.as_list()[1:]} for name, o in outputs.items()
    }


def export_model(  # noqa: PLR0913 - the lineage of a model
    model: keras.Model,
    spec: FeatureSpec,
    folder: str,
    *,
    run_id: str,
    version: int = 1,
    fingerprint: str = "",
    init_from: str = "",
) -> str:
    """Write one version of a model and return its folder.

    Args:
        model: a built model.
        spec: the columns that it takes.
        folder: where it goes; must not be there yet.
        run_id: the run that made it.
        version: its number within the run.
        fingerprint: the fingerprint of the dataset that it was trained on.
        init_from: file of the weights that the run started from; empty for initial ones.

    Raises:
        ModelError: Keras or TensorFlow cannot export it.
        StorageError: the folder cannot be written, or is there already.
    """
    facts = {
        "run_id": run_id,
        "version": version,
        "dataset_fingerprint": fingerprint,
        "init_from": init_from,
        "from_logits": bool(getattr(getattr(model, "loss", None), "from_logits", False)),
        "versions": {
            "spark_dl": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }
    final = normalise(folder)
    if is_local(final):
        temporary = f"{final}.tmp"
        _write(model, spec, temporary, facts)
        Storage(final).commit(temporary, final)
    else:
        with tempfile.TemporaryDirectory(prefix="spark-dl-model-") as scratch:
            temporary = os.path.join(scratch, "model")
            _write(model, spec, temporary, facts)
            publish_folder(temporary, final, last=MODEL_FILE)
    return final


def _write(model: keras.Model, spec: FeatureSpec, folder: str, facts: dict[str, Any]) -> None:
    """Write everything into a local folder."""
    storage = Storage(folder)
    storage.remove(folder)
    storage.make_folder(os.path.dirname(folder))
    try:
        outputs = _write_saved_model(model, spec, folder)
        model.save(join(folder, "model.keras"))
    except Exception as error:
        storage.remove(folder)
        msg = f"the model cannot be exported: {type(error).__name__}: {error}"
        raise ModelError(msg) from error
    storage.write_atomic(join(folder, "feature_spec.json"), spec.to_json())
    described = {**facts, "outputs": outputs, "checksum": folder_checksum(folder)}
    storage.write_atomic(join(folder, MODEL_FILE), json.dumps(described, indent=2))

"""Exported models for tests, without training one."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from spark_dl.storage.checksum import MODEL_FILE, folder_checksum

if TYPE_CHECKING:
    import keras

    from spark_dl.schema import FeatureSpec

__all__ = ["export_model"]


def export_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    spec: FeatureSpec,
    *,
    run_id: str = "test-run",
    version: int = 1,
) -> str:
    """Write a Keras model as an exported version, as the end of a training does.

    Args:
        model: its inputs are named as the features of `spec`.
        path: folder to write, not there yet.
        spec: the columns that the model takes.
        run_id: run that is said to have made it.
        version: number of the export.

    Returns:
        `path` as text, for `spark_dl.predict`.
    """
    import tensorflow as tf
    from keras.export import ExportArchive

    root = os.fspath(path)
    inputs = {
        entry.name: tf.TensorSpec((None, *entry.shape), entry.info.tensor, name=entry.name)
        for entry in spec.features
    }
    names = list(model.output_names)

    def serve(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        values = model(features, training=False)
        if isinstance(values, dict):
            return values
        return dict(zip(names, tf.nest.flatten(values), strict=True))

    archive = ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serve, input_signature=[inputs])
    archive.write_out(root, verbose=False)
    outputs = {
        name: {"dtype": tensor.dtype.name, "shape": tensor.shape.as_list()[1:]}
        for name, tensor in tf.function(serve)
        .get_concrete_function(inputs)
        .structured_outputs.items()
    }
    with open(os.path.join(root, "feature_spec.json"), "w") as file:
        file.write(spec.to_json())
    facts = {
        "run_id": run_id,
        "version": version,
        "checksum": folder_checksum(root),
        "outputs": outputs,
    }
    with open(os.path.join(root, MODEL_FILE), "w") as file:
        json.dump(facts, file)
    return root

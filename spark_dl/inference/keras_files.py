"""Executor side: ``.keras`` files, read in Keras' safe mode and made into functions.

Knows nothing of Spark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spark_dl.errors import ModelError

if TYPE_CHECKING:
    from spark_dl.inference.loading import ModelFile

__all__ = ["brief_reason", "input_structure", "read_keras", "served_function"]


def read_keras(file: ModelFile, path: str, *, compile: bool) -> Any:  # noqa: A002, ANN401 - Keras'
    """Return the model of a ``.keras`` file.

    Args:
        file: the file as the user named it.
        path: where it can be read here.
        compile: whether its loss and metrics are read too.

    Raises:
        ModelError: it cannot be loaded, or holds code that nobody has allowed.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        msg = (
            f"Keras runs on {keras.backend.backend()} on the executors, models are served on "
            "tensorflow: unset KERAS_BACKEND there"
        )
        raise ModelError(msg)
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=not file.allow_lambda)
    except Exception as error:
        raise _not_loaded(file, path, error) from error


def _not_loaded(file: ModelFile, path: str, error: Exception) -> ModelError:
    """Say why Keras does not load a file: it holds code, or another Keras wrote it."""
    import json
    import zipfile

    import keras

    text = str(error)
    if "safe_mode" in text or "unsafe" in text.lower():
        return ModelError(
            f"the model at {file.path} holds a Lambda layer, which is Python code that would run "
            "on the executors: if you trust whoever made the file, say allow_lambda=True "
            "(infer.allow_lambda); better, replace the layer"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            saved = json.loads(archive.read("metadata.json"))["keras_version"]
    except (zipfile.BadZipFile, KeyError, ValueError, OSError):
        return ModelError(f"{file.path} is no .keras file: save the model with model.save(…)")
    return ModelError(
        f"the model at {file.path} cannot be loaded: {type(error).__name__}: {brief_reason(text)} "
        f"(saved by Keras {saved}, here is {keras.__version__}); export it as a SavedModel with "
        "the Keras that saved it, or install that one on the executors"
    )


def input_structure(model: Any) -> Any:  # noqa: ANN401 - Keras'
    """Return a Keras model's inputs as it takes them: one, or several in a dict, list or tuple.

    `None` of a subclassed model, which declares none.
    """
    structure = getattr(model, "_inputs_struct", None)
    if structure is None and (inputs := getattr(model, "inputs", None)):
        return inputs[0]  # a Sequential's only one
    return structure


def served_function(file: ModelFile, model: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
    """Return a Keras model as a concrete function by input names, traced once."""
    import keras
    import tensorflow as tf

    structure = input_structure(model)
    if structure is None:
        msg = f"the model at {file.path} declares no inputs: export it as a SavedModel instead"
        raise ModelError(msg)
    named = structure if isinstance(structure, dict) else None
    flat = list(named.items()) if named else [(t.name, t) for t in keras.tree.flatten(structure)]
    inputs = {
        name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name=name)
        for name, tensor in flat
    }

    def serve(**tensors: Any) -> dict[str, Any]:  # noqa: ANN401 - TensorFlow's
        ordered = [tensors[name] for name, _ in flat]
        packed = tensors if named else keras.tree.pack_sequence_as(structure, ordered)
        outputs = model(packed, training=False)
        if isinstance(outputs, dict):
            return dict(outputs)
        if isinstance(outputs, (list, tuple)):
            return dict(zip(model.output_names, outputs, strict=True))
        return {"output": outputs}

    # as Keras' own `predict`, which has AutoGraph convert nothing
    return tf.function(serve, autograph=False).get_concrete_function(**inputs), inputs


def brief_reason(message: str) -> str:
    """Return what TensorFlow says went wrong, without the names of its nodes."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    noise = ("Graph", "Detected", "Node:", "[[", "<", "File ")
    telling = [line for line in lines if not line.startswith(noise)]
    return (telling or lines or [""])[0].partition(" [[")[0]

"""The models of `KerasClassifier` and `KerasRegressor` where no `modelFn` is given.

They run on the executors. `modelParams` may hold ``hiddenLayers`` (their widths, by default
``[64, 32]``), ``dropout`` (of each, by default 0) and ``learningRate`` (of Adam, by default 0.001).
All features are joined to one vector; scale them before, with `StandardScaler` for example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

    from spark_dl.schema import FeatureSpec

__all__ = ["classifier", "regressor"]

_HIDDEN: Final = (64, 32)


def classifier(spec: FeatureSpec, params: Mapping[str, Any]) -> keras.Model:
    """Return a dense classifier of ``params["numClasses"]`` classes.

    Args:
        spec: numeric features of fixed shapes.
        params: ``numClasses``, ``fromLogits``, and those of the module.
    """
    import keras

    is_logits = bool(params.get("fromLogits", False))
    activation = None if is_logits else "softmax"
    inputs, hidden = _hidden(spec, params)
    output = keras.layers.Dense(params["numClasses"], activation=activation)(hidden)
    model = keras.Model(inputs, output)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=is_logits)
    model.compile(_optimizer(params), loss=loss, metrics=["accuracy"])
    return model


def regressor(spec: FeatureSpec, params: Mapping[str, Any]) -> keras.Model:
    """Return a dense regressor that learns by squared error.

    Args:
        spec: numeric features of fixed shapes.
        params: those of the module.
    """
    import keras

    inputs, hidden = _hidden(spec, params)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(_optimizer(params), loss="mse", metrics=["mae"])
    return model


def _hidden(spec: FeatureSpec, params: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the inputs, and the last hidden layer's output."""
    import keras

    layers = keras.layers
    inputs = {}
    columns = []
    for entry in spec.features:
        if entry.size is None or entry.info.tensor == "string":
            msg = (
                f"feature {entry.name!r} ({entry.dtype.value}, shape {entry.shape}): the default "
                "model takes numbers of fixed shapes; give a modelFn for other features"
            )
            raise ConfigError(msg)
        inputs[entry.name] = keras.Input(entry.shape, name=entry.name, dtype=entry.info.tensor)
        flat = layers.Reshape((entry.size,))(inputs[entry.name])
        columns.append(keras.ops.cast(flat, "float32"))
    hidden = columns[0] if len(columns) == 1 else layers.Concatenate()(columns)
    for width in params.get("hiddenLayers", _HIDDEN):
        hidden = layers.Dense(width, activation="relu")(hidden)
        if params.get("dropout"):
            hidden = layers.Dropout(params["dropout"])(hidden)
    return inputs, hidden


def _optimizer(params: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    import keras

    return keras.optimizers.Adam(params.get("learningRate", 0.001))

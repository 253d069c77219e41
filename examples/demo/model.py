"""The demo's model: a small convolutional network for images of handwritten digits.

It is built on the executors; TensorFlow need not be installed on the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

    from spark_dl import FeatureSpec

DIGITS = 10


def build(spec: FeatureSpec, params: Mapping[str, Any]) -> keras.Model:
    """Return the compiled model.

    Args:
        spec: the dataset's columns; the feature `image` decides the size of the input.
        params: `learning_rate` and `dropout`, both optional.
    """
    import keras
    from keras import layers

    image = keras.Input(spec["image"].shape, name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(params.get("dropout", 0.4))(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(params.get("dropout", 0.4))(x)
    model = keras.Model(image, layers.Dense(DIGITS, activation="softmax", name="digit")(x))
    model.compile(
        optimizer=keras.optimizers.Adam(params.get("learning_rate", 2e-3)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model

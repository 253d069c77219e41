"""The model of the soak: all that has a state, and steps slow enough to be hit."""

from __future__ import annotations

import time


def model(spec, params):
    import keras

    class Pace(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            time.sleep(params["pace_s"])

    class Paced(keras.Model):
        def fit(self, *args, callbacks=(), **settings):
            return super().fit(*args, callbacks=[*callbacks, Pace()], **settings)

    inputs = keras.Input(spec["x"].shape, name="x")
    hidden = keras.layers.BatchNormalization(momentum=0.8)(inputs)
    hidden = keras.layers.Dropout(0.3)(keras.layers.Dense(6, activation="relu")(hidden))
    paced = Paced(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    paced.compile(
        optimizer=keras.optimizers.Adam(0.01), loss="binary_crossentropy", metrics=["accuracy"]
    )
    return paced

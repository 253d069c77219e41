"""The model of the example; the executors import it."""


def build(spec, params):  # noqa: ANN001, ANN201 - called by spark_dl
    """Return a compiled dense classifier.

    Args:
        spec: the features; here one vector, called as its column.
        params: `modelParams`, and ``numClasses``.
    """
    import keras

    (feature,) = spec.features
    inputs = {feature.name: keras.Input(feature.shape, name=feature.name)}
    hidden = keras.layers.Dense(params["width"], activation="relu")(inputs[feature.name])
    hidden = keras.layers.Dropout(params["dropout"])(hidden)
    output = keras.layers.Dense(params["numClasses"], activation="softmax")(hidden)
    model = keras.Model(inputs, output)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

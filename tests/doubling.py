"""A model that doubles its one input: what it predicts can be told without it."""

from __future__ import annotations

from spark_dl.schema import FeatureSpec, SpecEntry
from spark_dl.training.export import export_model


def export_doubling(folder, run_id="r"):
    """Export a model of the input ``a`` that predicts ``2 * a``, and return its folder."""
    import keras

    number = keras.Input((), name="a")
    score = keras.layers.Rescaling(2.0)(keras.layers.Reshape((1,))(number))
    spec = FeatureSpec(entries=(SpecEntry(name="a", column="a", dtype="float32"),))
    return export_model(keras.Model({"a": number}, score), spec, str(folder), run_id=run_id)

"""Turn the Spark cluster that you have into a TensorFlow training cluster.

Importing this package loads neither pyspark nor tensorflow: public names load on first use.

Example:
    ::

        import spark_dl

        dataset = spark_dl.prepare(
            df, features=["a", "b"], label="digit", path="/data/digits", splits={"train": 1.0}
        )
        run = spark_dl.train("models:small_cnn", dataset, epochs=5, runs="/data/runs")
        scored = spark_dl.predict(df, run.model_path)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from spark_dl.pipeline import Run, evaluate, predict, prepare, score_stream, train
    from spark_dl.schema import Feature, FeatureSpec
    from spark_dl.schema.tensors import feature_spec
    from spark_dl.shards.dataset import Dataset
    from spark_dl.shards.tfrecord import read_tfrecord, write_tfrecord

__all__ = [
    "Dataset",
    "Feature",
    "FeatureSpec",
    "Run",
    "__version__",
    "evaluate",
    "feature_spec",
    "predict",
    "prepare",
    "read_tfrecord",
    "score_stream",
    "train",
    "write_tfrecord",
]

__version__ = "0.1.0"

_HOMES: Final = {
    "Dataset": "spark_dl.shards.dataset",
    "Feature": "spark_dl.schema",
    "FeatureSpec": "spark_dl.schema",
    "Run": "spark_dl.pipeline",
    "evaluate": "spark_dl.pipeline",
    "feature_spec": "spark_dl.schema.tensors",
    "predict": "spark_dl.pipeline",
    "prepare": "spark_dl.pipeline",
    "read_tfrecord": "spark_dl.shards.tfrecord",
    "score_stream": "spark_dl.pipeline",
    "train": "spark_dl.pipeline",
    "write_tfrecord": "spark_dl.shards.tfrecord",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})

"""Keras models as Spark ML estimators: in a `Pipeline`, with `CrossValidator`, saved and loaded.

Names and behaviour are those of `pyspark.ml`, camel case included. Importing this package loads
neither pyspark nor tensorflow: public names load on first use.

Example:
    ::

        from pyspark.ml import Pipeline
        from spark_dl.ml import KerasClassifier

        classifier = KerasClassifier(modelFn="models:small", epochs=5, runsPath="/data/runs")
        model = Pipeline(stages=[assembler, classifier]).fit(df)
        model.transform(df).select("prediction", "probability")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from spark_dl.ml.classification import KerasClassificationModel, KerasClassifier
    from spark_dl.ml.estimator import KerasEstimator
    from spark_dl.ml.model import KerasModel
    from spark_dl.ml.regression import KerasRegressionModel, KerasRegressor

__all__ = [
    "KerasClassificationModel",
    "KerasClassifier",
    "KerasEstimator",
    "KerasModel",
    "KerasRegressionModel",
    "KerasRegressor",
]

_HOMES: Final = {
    "KerasClassificationModel": "spark_dl.ml.classification",
    "KerasClassifier": "spark_dl.ml.classification",
    "KerasEstimator": "spark_dl.ml.estimator",
    "KerasModel": "spark_dl.ml.model",
    "KerasRegressionModel": "spark_dl.ml.regression",
    "KerasRegressor": "spark_dl.ml.regression",
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

"""`KerasRegressor`: a Keras model behind Spark ML's interface of a regressor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.ml.linalg import Vector
from pyspark.ml.regression import RegressionModel, Regressor

from spark_dl.errors import ModelError
from spark_dl.ml.estimator import KerasEstimator
from spark_dl.ml.model import KerasModel
from spark_dl.ml.rows import MlColumns
from spark_dl.schema.derive import quoted

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from pyspark.sql import DataFrame

    from spark_dl.runs import Run

__all__ = ["KerasRegressionModel", "KerasRegressor"]


class KerasRegressor(KerasEstimator, Regressor["KerasRegressionModel"]):
    """Trains a Keras model that predicts a number.

    Args:
        params: the params, by keyword; `explainParams` lists them. `modelFn` returns a model with
            one output, one number a row. Its labels are float32. Without `modelFn` the model is a
            dense one, see `spark_dl.ml.dense`.

    Example:
        >>> regressor = KerasRegressor(epochs=5, runsPath="/data/runs")  # doctest: +SKIP
        >>> model = Pipeline(stages=[assembler, regressor]).fit(df)  # doctest: +SKIP
    """

    __module__ = "spark_dl.ml"

    def _model_fn(self) -> Callable[..., Any] | str | None:
        return super()._model_fn() or "spark_dl.ml.dense:regressor"

    def _columns(self) -> MlColumns:
        found = super()._columns()
        return MlColumns(**{**vars(found), "label_type": "float"})

    def _model(self, run: Run) -> KerasModel:
        return KerasRegressionModel.from_run(run).check_output()


class KerasRegressionModel(KerasModel, RegressionModel[Vector]):
    """A trained Keras regressor as a transformer: `predictionCol` is a double."""

    __module__ = "spark_dl.ml"

    def check_output(self) -> Self:
        """Check that the model gives one number, and return the model.

        Raises:
            ModelError: it gives something else.
        """
        outputs = self.exported.outputs
        if [output.dims for output in outputs.values()] != [()]:
            found = ", ".join(f"{name} {output.shape}" for name, output in outputs.items())
            msg = (
                f"the model at {self.modelPath} gives {found}: a regressor has one output, one "
                "number a row; use KerasEstimator for other models"
            )
            raise ModelError(msg)
        return self

    def _transform(self, dataset: DataFrame) -> DataFrame:
        from pyspark.sql import functions as sf

        name = self.getPredictionCol()
        scored = self._scored(dataset, name)
        return scored.withColumn(name, sf.col(quoted(name)).cast("double"))

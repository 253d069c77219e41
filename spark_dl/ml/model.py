"""`KerasModel`: what `KerasEstimator` fits, a transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.ml.base import PredictionModel
from pyspark.ml.linalg import Vector
from pyspark.ml.util import MLReadable, MLWritable

from spark_dl.errors import ModelError, SchemaError
from spark_dl.inference import open_model
from spark_dl.inference import predict as score
from spark_dl.inference.apply import LINEAGE_COLUMNS
from spark_dl.inference.evaluate import evaluate as figures
from spark_dl.ml.params import FeatureParams
from spark_dl.ml.persistence import ModelReader, ModelWriter
from spark_dl.ml.rows import array_of, is_vector
from spark_dl.schema.derive import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from pyspark.sql import DataFrame

    from spark_dl.inference import ExportedModel
    from spark_dl.inference.figures import Evaluation
    from spark_dl.runs import Run

__all__ = ["KerasModel"]

#: Where a column of the table waits while the model's input of its name stands in its place.
_ASIDE = "spark_dl_aside_"


class KerasModel(PredictionModel[Vector], FeatureParams, MLReadable["KerasModel"], MLWritable):
    """A trained Keras model as a transformer.

    `transform` adds `predictionCol`: a number, or an array where the model's output is a vector;
    of several outputs ``<predictionCol>_<output>`` each.

    Attributes:
        modelPath: folder of the exported model: a SavedModel, with ``model.keras`` in it.
        runId: the training run that made it.
        history: metrics over all workers, one value an epoch: ``loss``, ``val_loss`` and so on.
    """

    __module__ = "spark_dl.ml"  # saved stages name their class: the public path never moves

    def __init__(
        self,
        modelPath: str = "",
        runId: str = "",
        history: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.modelPath = modelPath
        self.runId = runId
        self.history = {name: list(values) for name, values in (history or {}).items()}
        self._opened: ExportedModel | None = None

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Return the model that a training run exported.

        Example:
            >>> KerasModel.from_run(run).setFeaturesCol("features")  # doctest: +SKIP
        """
        return cls(run.model_path, run.run_id, run.history)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric in `history`."""
        return {name: values[-1] for name, values in self.history.items() if values}

    @property
    def exported(self) -> ExportedModel:
        """The exported model's description: its feature spec and its outputs.

        Raises:
            ModelError: it is not there, or not what was exported.
        """
        if self._opened is None:
            self._opened = open_model(self.modelPath)
        return self._opened

    @property
    def numFeatures(self) -> int:
        """Number of values that the model takes a row, -1 where a feature's length varies."""
        sizes = [entry.size for entry in self.exported.spec.features]
        return -1 if None in sizes else sum(size or 0 for size in sizes)

    def predict(self, value: Vector) -> Any:  # noqa: ANN401 - a number, or a vector's values
        """Return the prediction for one vector, by a Spark job: for many use `transform`.

        Args:
            value: the features, as many as `numFeatures`.

        Returns:
            What `transform` writes into `predictionCol`.
        """
        return self._one(value)[self.getPredictionCol()]

    def setLabelCol(self, value: str) -> Self:
        """Set the column of the label, for `evaluate`."""
        return self._set(labelCol=value)

    def evaluate(self, dataset: DataFrame) -> Evaluation:
        """Evaluate the model over all rows of a DataFrame, on the cluster; each counts once.

        Args:
            dataset: rows with the features and the label: `labelCol` if it was set, else the column
                that the model was trained on. The column of weights that it was trained on is used
                where there is one of that name.

        Returns:
            The metrics that the model was compiled with, equal to Keras' own on one machine, and
            the confusion matrix of a classifier (by its largest probability, without `thresholds`).

        Raises:
            ModelError: the table does not fit the model.
            SchemaError: a column is missing, or the model does not say which one is the label.
            DataError: there are no rows, or bad ones.

        Example:
            >>> model.evaluate(test_rows).metrics["loss"]  # doctest: +SKIP
        """
        ready, aside = self._with_inputs(dataset)
        trained = self.exported.spec.label
        label = self.getLabelCol()
        if trained is not None and not self.isSet(self.labelCol):
            label = trained.column
        return figures(ready, self.exported, label=_ASIDE + label if label in aside else label)

    def _one(self, value: Vector) -> Any:  # noqa: ANN401 - a row
        from spark_dl.session import active_session

        columns = self.feature_columns()
        if len(columns) != 1:
            msg = f"{self.uid} takes {len(columns)} inputs, no single vector: use transform"
            raise ModelError(msg)
        if self.numFeatures not in (-1, len(value)):
            msg = f"{self.uid} takes {self.numFeatures} features, got {len(value)}"
            raise ModelError(msg)
        table = active_session().createDataFrame([(value,)], columns)
        return self.transform(table).collect()[0]

    def write(self) -> ModelWriter:
        """Return a writer: it copies the exported model beside the params."""
        return ModelWriter(self)

    @classmethod
    def read(cls) -> ModelReader[Self]:
        """Return a reader."""
        return ModelReader(cls)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return self._scored(dataset, self.getPredictionCol())

    def _scored(self, dataset: DataFrame, prefix: str) -> DataFrame:
        """Return `dataset` with the model's outputs."""
        ready, aside = self._with_inputs(dataset)
        scored = score(ready, self.modelPath, prefix=prefix).drop(*LINEAGE_COLUMNS)
        for name in aside:
            scored = scored.drop(name)
            if name in dataset.columns:
                scored = scored.withColumnRenamed(_ASIDE + name, name)
        return scored

    def _with_inputs(self, dataset: DataFrame) -> tuple[DataFrame, list[str]]:
        """Return `dataset` with the model's inputs in the columns that it was trained on.

        A column whose name such an input needs is renamed meanwhile, which keeps its place and
        what Spark ML noted about it.

        Returns:
            The table, and the columns that were made for it.
        """
        from pyspark.sql import functions as sf

        entries = self.exported.spec.features
        sources = self.feature_columns()
        if len(sources) != len(entries):
            trained = ", ".join(entry.column for entry in entries)
            msg = f"{self.uid} was trained on {trained}; {', '.join(sources)} is set"
            raise ModelError(msg)
        for source in sources:
            if source not in dataset.columns:
                raise SchemaError.missing_column(source, dataset.columns)
        made = {
            entry.column: array_of(dataset, source)
            for entry, source in zip(entries, sources, strict=True)
            if source != entry.column or is_vector(dataset, source)
        }
        ready = dataset.select(
            *(
                sf.col(quoted(name)).alias(_ASIDE + name if name in made else name)
                for name in dataset.columns
            ),
            *(column.alias(name) for name, column in made.items()),
        )
        return ready, list(made)

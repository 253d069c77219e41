"""`KerasClassifier`: a Keras model behind Spark ML's interface of a probabilistic classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pyspark.ml.classification import ProbabilisticClassificationModel, ProbabilisticClassifier
from pyspark.ml.param import Param, Params, TypeConverters

from spark_dl._jvm import brief_cause, spark_errors
from spark_dl.errors import ConfigError, DataError, ModelError
from spark_dl.inference.matching import check_new_columns
from spark_dl.ml.estimator import KerasEstimator
from spark_dl.ml.model import KerasModel
from spark_dl.ml.params import EstimatorArguments, set_arguments
from spark_dl.ml.probabilities import predicted, probabilities, raw_predictions
from spark_dl.ml.rows import MlColumns, noted_by_spark
from spark_dl.schema.derive import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self, Unpack

    from pyspark.ml.linalg import Vector
    from pyspark.sql import DataFrame

    from spark_dl.inference import ExportedModel
    from spark_dl.runs import Run

__all__ = ["KerasClassificationModel", "KerasClassifier"]

#: The model's output, before Spark ML's columns are made of it.
_OUTPUT: Final = "spark_dl_output"
_OWNER: Final = Params._dummy()  # noqa: SLF001 - pyspark's own idiom for params


class ClassifierArguments(EstimatorArguments, total=False):
    """The keyword arguments of `KerasClassifier`."""

    numClasses: int
    fromLogits: bool
    probabilityCol: str
    rawPredictionCol: str
    thresholds: Sequence[float]


class LogitsParams(Params):
    """What tells a model's output apart."""

    fromLogits: Param[bool] = Param(
        _OWNER,
        "fromLogits",
        "whether the model gives logits rather than probabilities",
        typeConverter=TypeConverters.toBoolean,
    )

    def getFromLogits(self) -> bool:
        """Return the value of fromLogits."""
        return self.getOrDefault(self.fromLogits)

    def setFromLogits(self, value: bool) -> Self:  # noqa: FBT001 - setters of Spark ML
        """Set whether the model gives logits rather than probabilities."""
        return self._set(fromLogits=value)


class KerasClassifier(KerasEstimator, ProbabilisticClassifier, LogitsParams):
    """Trains a Keras classifier; classes are 0, 1, … as `StringIndexer` makes them.

    Args:
        params: the params, by keyword; `explainParams` lists them. `modelFn` returns a model with
            one output: a number a class (softmax), or one number for two classes (sigmoid, the
            probability of class 1); with ``fromLogits=True`` the numbers before softmax or
            sigmoid. Its labels are int32. Its params hold ``numClasses``. Without `modelFn` the
            model is a dense one, see `spark_dl.ml.dense`.

    Example:
        >>> classifier = KerasClassifier(epochs=5, runsPath="/data/runs")  # doctest: +SKIP
        >>> model = Pipeline(stages=[assembler, classifier]).fit(df)  # doctest: +SKIP
    """

    __module__ = "spark_dl.ml"

    numClasses: Param[int] = Param(
        _OWNER,
        "numClasses",
        "number of classes; by default what StringIndexer noted, else the largest label + 1",
        typeConverter=TypeConverters.toInt,
    )

    def __init__(self, **params: Unpack[ClassifierArguments]) -> None:
        super().__init__()
        self._setDefault(fromLogits=False)
        set_arguments(self, params)

    def setParams(self, **params: Unpack[ClassifierArguments]) -> Self:
        """Set params by keyword, as the constructor does."""
        set_arguments(self, params)
        return self

    def getNumClasses(self) -> int:
        """Return the value of numClasses."""
        return self.getOrDefault(self.numClasses)

    def setNumClasses(self, value: int) -> Self:
        """Set the number of classes."""
        return self._set(numClasses=value)

    def _model_fn(self) -> Callable[..., Any] | str | None:
        return super()._model_fn() or "spark_dl.ml.dense:classifier"

    def _columns(self) -> MlColumns:
        found = super()._columns()
        return MlColumns(**{**vars(found), "label_type": "int"})

    def _facts(self, rows: DataFrame) -> Mapping[str, Any]:
        num_classes = self._num_classes(rows)
        thresholds = self._given("thresholds")
        if thresholds is not None:
            _check_thresholds(thresholds, num_classes)
        return {"numClasses": num_classes, "fromLogits": self.getFromLogits()}

    def _num_classes(self, rows: DataFrame) -> int:
        """Return the number of classes, and check the labels."""
        label = self.getLabelCol()
        most = _largest_label(rows, label)
        noted = noted_by_spark(rows, label)
        indexed = len(noted.get("vals", ())) or int(noted.get("num_vals", 0))
        num_classes = self._given("numClasses") or indexed or max(most + 1, 2)
        if most >= num_classes:
            msg = (
                f"label column {label!r} holds {most}, but there are {num_classes} classes, 0 to "
                f"{num_classes - 1}: raise numClasses or index the labels with StringIndexer"
            )
            raise DataError(msg)
        return int(num_classes)

    def _model(self, run: Run) -> KerasModel:
        return KerasClassificationModel.from_run(run).check_output()


class KerasClassificationModel(KerasModel, ProbabilisticClassificationModel, LogitsParams):
    """A trained Keras classifier as a transformer.

    `transform` adds `rawPredictionCol` and `probabilityCol` (vectors, a number a class) and
    `predictionCol` (double, the class). A column whose param is empty is left out. Raw predictions
    are the model's logits with ``fromLogits``, else its probabilities.
    """

    __module__ = "spark_dl.ml"

    def __init__(
        self,
        modelPath: str = "",
        runId: str = "",
        history: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__(modelPath, runId, history)
        self._setDefault(fromLogits=False)

    @property
    def numClasses(self) -> int:
        """Number of classes that the model tells apart."""
        return _num_outputs(self.exported)

    def check_output(self) -> Self:
        """Check that the model's output is that of a classifier, and return the model.

        Raises:
            ModelError: it has several outputs, or one that is no vector of a fixed length.
        """
        _num_outputs(self.exported)
        return self

    def predictRaw(self, value: Vector) -> Vector:
        """Return the raw predictions for one vector, by a Spark job."""
        return self._one(value)[self.getRawPredictionCol()]  # type: ignore[no-any-return]

    def predictProbability(self, value: Vector) -> Vector:
        """Return the probabilities for one vector, by a Spark job."""
        return self._one(value)[self.getProbabilityCol()]  # type: ignore[no-any-return]

    def _transform(self, dataset: DataFrame) -> DataFrame:
        from pyspark.ml.functions import array_to_vector
        from pyspark.sql import functions as sf

        wanted = [self.getRawPredictionCol(), self.getProbabilityCol(), self.getPredictionCol()]
        check_new_columns([name for name in wanted if name], dataset.columns)
        thresholds = self.getThresholds() if self.isDefined(self.thresholds) else None
        if thresholds is not None:
            _check_thresholds(thresholds, self.numClasses)
        (output,) = self.exported.outputs.values()
        kind = {"is_scalar": not output.dims, "is_logits": self.getFromLogits()}
        raw = raw_predictions(sf.col(_OUTPUT), **kind)
        probability = probabilities(raw, **kind)
        made = dict(
            zip(
                wanted,
                (
                    array_to_vector(raw),
                    array_to_vector(probability),
                    predicted(probability, thresholds),
                ),
                strict=True,
            )
        )
        scored = self._scored(dataset, _OUTPUT)
        return scored.withColumns({name: made[name] for name in wanted if name}).drop(_OUTPUT)


def _num_outputs(exported: ExportedModel) -> int:
    outputs = exported.outputs
    dims = [output.dims for output in outputs.values()]
    if len(dims) == 1 and len(dims[0]) <= 1 and None not in dims[0]:
        return int(dims[0][0] or 0) if dims[0] else 2
    found = ", ".join(f"{name} {output.shape}" for name, output in outputs.items())
    msg = (
        f"the model at {exported.path} gives {found}: a classifier has one output, a number a "
        "class or one number for two classes; use KerasEstimator for other models"
    )
    raise ModelError(msg)


def _largest_label(rows: DataFrame, label: str) -> int:
    """Return the largest label.

    Raises:
        DataError: labels are no classes 0, 1, …, or there are no rows.
    """
    from pyspark.sql import functions as sf

    value = sf.col(quoted(label)).cast("double")
    bad = value.isNull() | sf.isnan(value) | (value < 0) | (value != sf.floor(value))
    measures = (sf.count(sf.lit(1)), sf.count_if(bad), sf.min(sf.when(bad, value)), sf.max(value))
    try:
        total, num_bad, example, largest = rows.agg(*measures).collect()[0]
    except spark_errors() as error:
        msg = f"the rows cannot be read: {brief_cause(error)}"
        raise DataError(msg) from error
    if num_bad:
        msg = (
            f"label column {label!r}: {num_bad} of {total} rows hold no class (such as {example}), "
            "expected 0, 1, 2, …: index the labels with StringIndexer"
        )
        raise DataError(msg)
    if not total:
        msg = "the table has no rows: nothing to fit"
        raise DataError(msg)
    return int(largest)


def _check_thresholds(thresholds: Sequence[float], num_classes: int) -> None:
    zeros = sum(threshold == 0 for threshold in thresholds)
    if len(thresholds) != num_classes or min(thresholds) < 0 or zeros > 1:
        msg = (
            f"thresholds={list(thresholds)}: expected {num_classes} numbers, one a class, above 0; "
            "one of them may be 0"
        )
        raise ConfigError(msg)

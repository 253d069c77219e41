"""The params of the estimators and models, as pyspark.ml has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

from pyspark.ml.base import _PredictorParams
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasSeed, HasValidationIndicatorCol, HasWeightCol

from spark_dl.errors import ConfigError
from spark_dl.ml.functions import to_function

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

__all__ = ["EstimatorArguments", "EstimatorParams", "FeatureParams", "set_arguments"]

#: A trial waits for the whole of the trainings before it: a day.
_SLOTS_TIMEOUT_S: Final = 86_400.0
#: Stands for the instance that will own a param: pyspark's own idiom.
_OWNER: Final = Params._dummy()  # noqa: SLF001


class EstimatorArguments(TypedDict, total=False):
    """The keyword arguments of `KerasEstimator`: its params."""

    modelFn: Callable[..., Any] | str
    modelParams: Mapping[str, Any]
    featuresCol: str
    featuresCols: Sequence[str]
    labelCol: str
    predictionCol: str
    weightCol: str
    validationIndicatorCol: str
    idCol: str
    numWorkers: int
    epochs: int
    globalBatchSize: int
    seed: int
    backend: str
    callbacks: Callable[..., Any] | str
    runsPath: str
    datasetPath: str
    settings: Mapping[str, Mapping[str, Any]]
    slotsTimeout: float


def set_arguments(instance: Params, arguments: Mapping[str, Any]) -> None:
    """Set the params that a constructor or `setParams` was given; `None` leaves one as it is.

    Raises:
        ConfigError: there is no such param; the message names the closest one.
        TypeError: a value has the wrong type.
    """
    known = [param.name for param in instance.params]
    for name in arguments:
        if name not in known:
            raise ConfigError.unknown_key(name, where=type(instance).__name__, known=known)
    instance._set(**arguments)  # noqa: SLF001 - pyspark's own way to set params


def _to_mapping(value: Any) -> dict[str, Any]:  # noqa: ANN401 - converts what users give
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    msg = f"expected a dict with text keys, got {value!r}"
    raise TypeError(msg)


class FeatureParams(_PredictorParams):
    """What estimators and models have in common: the columns that they read and write."""

    featuresCols: Param[list[str]] = Param(
        _OWNER,
        "featuresCols",
        "feature columns, one model input each, called as the column; instead of featuresCol",
        typeConverter=TypeConverters.toListString,
    )

    def getFeaturesCols(self) -> list[str]:
        """Return the value of featuresCols."""
        return self.getOrDefault(self.featuresCols)

    def setFeaturesCols(self, value: Sequence[str]) -> Self:
        """Set the feature columns, one model input each."""
        return self._set(featuresCols=value)

    def feature_columns(self) -> list[str]:
        """Return the feature columns, whichever of the two params names them.

        Raises:
            ConfigError: both do, or a column is named twice.
        """
        if not self.isSet(self.featuresCols):
            return [self.getFeaturesCol()]
        if self.isSet(self.featuresCol):
            msg = (
                f"{self.uid}: both featuresCol={self.getFeaturesCol()!r} and "
                f"featuresCols={self.getFeaturesCols()!r} are set: clear one of them"
            )
            raise ConfigError(msg)
        columns = self.getFeaturesCols()
        if not columns or len(set(columns)) < len(columns):
            msg = f"{self.uid}: featuresCols={columns!r}: name at least one column, each once"
            raise ConfigError(msg)
        return columns


class EstimatorParams(FeatureParams, HasWeightCol, HasValidationIndicatorCol, HasSeed):
    """What an estimator has besides: the model, the training and where both are kept."""

    modelFn: Param[Callable[..., Any] | str] = Param(
        _OWNER,
        "modelFn",
        "modelFn(spec, params) returns a compiled keras.Model, on the executors; a function or "
        "'package.module:function' (only a function that can be imported can be saved)",
        typeConverter=to_function,
    )
    modelParams: Param[dict[str, Any]] = Param(
        _OWNER,
        "modelParams",
        "params of modelFn, a dict",
        typeConverter=_to_mapping,
    )
    idCol: Param[str] = Param(
        _OWNER,
        "idCol",
        "column that identifies a row and decides its place in the dataset; without it all do",
        typeConverter=TypeConverters.toString,
    )
    numWorkers: Param[int] = Param(
        _OWNER,
        "numWorkers",
        "workers of a training (>= 1), each in one task slot; without it all slots",
        typeConverter=TypeConverters.toInt,
    )
    epochs: Param[int] = Param(
        _OWNER,
        "epochs",
        "passes over the training rows (>= 1)",
        typeConverter=TypeConverters.toInt,
    )
    globalBatchSize: Param[int] = Param(
        _OWNER,
        "globalBatchSize",
        "rows of a step over all workers together, which share it equally",
        typeConverter=TypeConverters.toInt,
    )
    backend: Param[str] = Param(
        _OWNER,
        "backend",
        "auto, tensorflowonspark or barrier",
        typeConverter=TypeConverters.toString,
    )
    callbacks: Param[Callable[..., Any] | str] = Param(
        _OWNER,
        "callbacks",
        "callbacks(rank) returns Keras callbacks, on the executors; a function or "
        "'package.module:function'",
        typeConverter=to_function,
    )
    runsPath: Param[str] = Param(
        _OWNER,
        "runsPath",
        "folder of run directories, on storage that driver and executors share",
        typeConverter=TypeConverters.toString,
    )
    datasetPath: Param[str] = Param(
        _OWNER,
        "datasetPath",
        "folder for the rows as TFRecord shards, on storage that driver and executors share; "
        "equal rows are written once; it may be emptied when nothing trains",
        typeConverter=TypeConverters.toString,
    )
    settings: Param[dict[str, Any]] = Param(
        _OWNER,
        "settings",
        "further settings of spark_dl.train(config=...), a dict of sections",
        typeConverter=_to_mapping,
    )
    slotsTimeout: Param[float] = Param(
        _OWNER,
        "slotsTimeout",
        "seconds that a fit may wait for task slots that other fits of this driver hold",
        typeConverter=TypeConverters.toFloat,
    )

    def set_estimator_defaults(self) -> None:
        """Give the params their defaults; constructors call it."""
        self._setDefault(
            modelParams={},
            seed=0,  # pyspark's own default differs from process to process
            epochs=1,
            globalBatchSize=32,
            backend="auto",
            runsPath="runs",
            datasetPath="datasets",
            settings={},
            slotsTimeout=_SLOTS_TIMEOUT_S,
        )

    def getModelFn(self) -> Callable[..., Any] | str:
        """Return the value of modelFn."""
        return self.getOrDefault(self.modelFn)

    def setModelFn(self, value: Callable[..., Any] | str) -> Self:
        """Set the function that returns a compiled Keras model."""
        return self._set(modelFn=value)

    def getModelParams(self) -> dict[str, Any]:
        """Return the value of modelParams."""
        return self.getOrDefault(self.modelParams)

    def setModelParams(self, value: Mapping[str, Any]) -> Self:
        """Set the params of modelFn."""
        return self._set(modelParams=value)

    def setWeightCol(self, value: str) -> Self:
        """Set the column of the sample weights."""
        return self._set(weightCol=value)

    def setValidationIndicatorCol(self, value: str) -> Self:
        """Set the boolean column that is true for the rows to validate on."""
        return self._set(validationIndicatorCol=value)

    def setSeed(self, value: int) -> Self:
        """Set the seed of weights, row order and random layers."""
        return self._set(seed=value)

    def getIdCol(self) -> str:
        """Return the value of idCol."""
        return self.getOrDefault(self.idCol)

    def setIdCol(self, value: str) -> Self:
        """Set the column that identifies a row."""
        return self._set(idCol=value)

    def getNumWorkers(self) -> int:
        """Return the value of numWorkers."""
        return self.getOrDefault(self.numWorkers)

    def setNumWorkers(self, value: int) -> Self:
        """Set the number of workers of a training."""
        return self._set(numWorkers=value)

    def getEpochs(self) -> int:
        """Return the value of epochs."""
        return self.getOrDefault(self.epochs)

    def setEpochs(self, value: int) -> Self:
        """Set the passes over the training rows."""
        return self._set(epochs=value)

    def getGlobalBatchSize(self) -> int:
        """Return the value of globalBatchSize."""
        return self.getOrDefault(self.globalBatchSize)

    def setGlobalBatchSize(self, value: int) -> Self:
        """Set the rows of a step over all workers."""
        return self._set(globalBatchSize=value)

    def getBackend(self) -> str:
        """Return the value of backend."""
        return self.getOrDefault(self.backend)

    def setBackend(self, value: str) -> Self:
        """Set the backend: auto, tensorflowonspark or barrier."""
        return self._set(backend=value)

    def getCallbacks(self) -> Callable[..., Any] | str:
        """Return the value of callbacks."""
        return self.getOrDefault(self.callbacks)

    def setCallbacks(self, value: Callable[..., Any] | str) -> Self:
        """Set the function that returns Keras callbacks."""
        return self._set(callbacks=value)

    def getRunsPath(self) -> str:
        """Return the value of runsPath."""
        return self.getOrDefault(self.runsPath)

    def setRunsPath(self, value: str) -> Self:
        """Set the folder of run directories."""
        return self._set(runsPath=value)

    def getDatasetPath(self) -> str:
        """Return the value of datasetPath."""
        return self.getOrDefault(self.datasetPath)

    def setDatasetPath(self, value: str) -> Self:
        """Set the folder for the rows as TFRecord shards."""
        return self._set(datasetPath=value)

    def getSettings(self) -> dict[str, Any]:
        """Return the value of settings."""
        return self.getOrDefault(self.settings)

    def setSettings(self, value: Mapping[str, Mapping[str, Any]]) -> Self:
        """Set further settings of `spark_dl.train`."""
        return self._set(settings=value)

    def getSlotsTimeout(self) -> float:
        """Return the value of slotsTimeout, in seconds."""
        return self.getOrDefault(self.slotsTimeout)

    def setSlotsTimeout(self, value: float) -> Self:
        """Set how long a fit may wait for task slots, in seconds."""
        return self._set(slotsTimeout=value)

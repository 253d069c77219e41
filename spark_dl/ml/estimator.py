"""`KerasEstimator`: a Keras model that Spark ML fits."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pyspark.ml.base import Predictor
from pyspark.ml.util import MLReadable, MLWritable

from spark_dl.cluster.profile import cluster_conf
from spark_dl.cluster.resources import slot_capacity
from spark_dl.errors import ConfigError
from spark_dl.ml.model import KerasModel
from spark_dl.ml.params import EstimatorArguments, EstimatorParams, set_arguments
from spark_dl.ml.persistence import EstimatorReader, EstimatorWriter
from spark_dl.ml.queue import TrainingQueue, exclusive
from spark_dl.ml.rows import MlColumns, measured, select_rows, with_label
from spark_dl.pipeline import prepare, train
from spark_dl.shards.identity import identify_rows
from spark_dl.storage import join, new_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self, Unpack

    from pyspark.sql import DataFrame

    from spark_dl.runs import Run
    from spark_dl.schema import Feature
    from spark_dl.shards.dataset import Dataset

__all__ = ["KerasEstimator"]

M = TypeVar("M", bound=KerasModel)

#: A fold is written or scored in minutes; a streaming query holds its slots for ever.
_MOST_BUSY_S: Final = 600.0
_LEAST_BUSY_S: Final = 10.0
#: One queue an application: its trainings share its slots.
_queues: Final[dict[str, TrainingQueue]] = {}


class KerasEstimator(
    Predictor[KerasModel], EstimatorParams, MLReadable["KerasEstimator"], MLWritable
):
    """Trains a Keras model data-parallel on the executors, as a stage of Spark ML.

    Args:
        params: the params, by keyword; `explainParams` lists them. `modelFn` is called on the
            executors as ``modelFn(spec: FeatureSpec, params: dict)`` and returns a compiled
            `keras.Model` whose inputs are called as the feature columns. A vector column of n
            elements is an input of shape ``(n,)``, float32.

    Raises:
        ConfigError: there is no such param.
        TypeError: a value has the wrong type.

    Example:
        >>> estimator = KerasEstimator(modelFn="models:autoencoder", epochs=3)  # doctest: +SKIP
        >>> model = estimator.fit(df)  # doctest: +SKIP
    """

    __module__ = "spark_dl.ml"  # saved stages name their class: the public path never moves

    def __init__(self, **params: Unpack[EstimatorArguments]) -> None:
        super().__init__()
        self.set_estimator_defaults()
        set_arguments(self, params)

    def setParams(self, **params: Unpack[EstimatorArguments]) -> Self:
        """Set params by keyword, as the constructor does."""
        set_arguments(self, params)
        return self

    def write(self) -> EstimatorWriter:
        """Return a writer; `modelFn` must be a function that can be imported by its name."""
        return EstimatorWriter(self)

    @classmethod
    def read(cls) -> EstimatorReader[Self]:
        """Return a reader."""
        return EstimatorReader(cls)

    def _fit(self, dataset: DataFrame) -> KerasModel:
        """Write the rows as a dataset, train on it and return the model."""
        self._check()
        columns = self._columns()
        with select_rows(dataset, columns) as rows:
            model_params = {**self._facts(rows), **self.getModelParams()}
            features = measured(dataset, rows, columns.features)
            prepared = self._prepare(with_label(rows, columns), features, columns)
        run = self._train(dataset, prepared, model_params)
        model = self._model(run)
        model._resetUid(self.uid)  # noqa: SLF001 - as pyspark's estimators do it
        return self._copyValues(model)

    def _check(self) -> None:
        """Check what needs no rows.

        Raises:
            ConfigError: there is no model, or the feature columns are named twice.
        """
        self.feature_columns()
        if self._model_fn() is None:
            msg = (
                f"{self.uid} has no modelFn: set it to a function modelFn(spec, params) that "
                "returns a compiled keras.Model"
            )
            raise ConfigError(msg)

    def _model_fn(self) -> Callable[..., Any] | str | None:
        return self.getModelFn() if self.isDefined(self.modelFn) else None

    def _columns(self) -> MlColumns:
        """Return the columns of the training; a subclass says what its label becomes."""
        return MlColumns(
            features=tuple(self.feature_columns()),
            label=self.getLabelCol(),
            weight=self._given("weightCol") or None,  # Spark ML: an empty name is none
            validation=self._given("validationIndicatorCol") or None,
            id=self._given("idCol") or None,
        )

    def _given(self, name: str) -> Any:  # noqa: ANN401 - a param's value
        """Return a param's value, `None` where it has none."""
        param = self.getParam(name)
        return self.getOrDefault(param) if self.isDefined(param) else None

    def _facts(self, rows: DataFrame) -> Mapping[str, Any]:
        """Return what `modelFn` learns about the rows in its params; a subclass adds some."""
        del rows
        return {}

    def _model(self, run: Run) -> KerasModel:
        """Return the fitted model; a subclass returns its own."""
        return KerasModel.from_run(run)

    def _prepare(
        self, rows: DataFrame, features: Mapping[str, str | Feature], columns: MlColumns
    ) -> Dataset:
        """Write the rows as shards, into a folder named by their content.

        So the trials of a `CrossValidator` that differ in the model only share one dataset.
        """
        identity = identify_rows(rows) or secrets.token_hex(16)
        facts = repr((identity, rows.schema.json(), features, columns))
        name = hashlib.sha256(facts.encode()).hexdigest()[:16]
        path = join(self.getDatasetPath(), name)
        with exclusive(path, timeout_s=self.getSlotsTimeout()):
            return prepare(
                rows,
                features=features,
                label=columns.label,
                weight=columns.weight,
                id=columns.id,
                path=path,
                splits=None if columns.validation else {"train": 1.0},
                split_column=columns.validation,
            )

    def _train(self, dataset: DataFrame, prepared: Dataset, model_params: Mapping[str, Any]) -> Run:
        """Wait for task slots, then train."""
        spark = dataset.sparkSession
        run_id = f"{new_run_id(type(self).__name__)}-{secrets.token_hex(3)}"
        num_workers = self._given("numWorkers")
        queue = _queues.setdefault(cluster_conf(spark).get("spark.app.id", ""), TrainingQueue())
        with queue.slots(
            run_id,
            need=num_workers,
            capacity=None if _has_own_slots(self.getSettings()) else slot_capacity(spark),
            timeout_s=self.getSlotsTimeout(),
        ) as seconds_left:
            return train(
                self._model_fn(),
                prepared,
                params=model_params,
                callbacks=self._given("callbacks"),
                num_workers=num_workers,
                epochs=self.getEpochs(),
                global_batch_size=self.getGlobalBatchSize(),
                seed=self.getSeed(),
                runs=self.getRunsPath(),
                run_id=run_id,
                backend=cast("Any", self.getBackend()),
                tensorboard=False,
                config=_patient(self.getSettings(), seconds_left),
                spark=spark,
            )


def _patient(settings: Mapping[str, Any], seconds_left: float) -> dict[str, Any]:
    """Return the settings, with patience for slots that other trials' Spark jobs hold."""
    patience_s = max(min(seconds_left, _MOST_BUSY_S), _LEAST_BUSY_S)
    cluster = {"busy_timeout_s": patience_s, **settings.get("cluster", {})}
    return {**settings, "cluster": cluster}


def _has_own_slots(settings: Mapping[str, Any]) -> bool:
    """Whether workers ask for more than a task slot, so that slots cannot simply be counted."""
    return bool({"cores_per_worker", "gpus_per_worker"} & set(settings.get("cluster", {})))

"""Estimators and models on storage: params as pyspark.ml writes them, the model beside them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReader, MLWriter

from spark_dl._jvm import default_filesystem, is_connect
from spark_dl.errors import ModelError
from spark_dl.ml.functions import function_name
from spark_dl.storage import Storage, join, normalise, spark_uri

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from spark_dl.ml.estimator import KerasEstimator
    from spark_dl.ml.model import KerasModel

__all__ = ["EstimatorReader", "EstimatorWriter", "ModelReader", "ModelWriter"]

E = TypeVar("E", bound="KerasEstimator")
M = TypeVar("M", bound="KerasModel")

#: Folder of the exported model below a saved model's.
_MODEL: Final = "model"
_FUNCTIONS: Final = ("modelFn", "callbacks")


def _resolved(spark: SparkSession, path: str) -> str:
    """Return where Spark means by a path, so that params and model lie in one place.

    A path without a scheme is one on Spark's default file system, as everywhere in Spark ML.
    """
    default = "" if "://" in path or path.startswith("file:") else default_filesystem(spark)
    return join(default, path.lstrip("/")) if default else normalise(path)


def _context(spark: SparkSession) -> Any:  # noqa: ANN401 - as pyspark's own functions take it
    """Return what pyspark's writers and readers want: Spark 3.5 knows the SparkContext only."""
    return spark if is_connect(spark) else spark.sparkContext


class _Writer(MLWriter):
    """Writes where `Storage` writes; overwriting needs no JVM, so it works on Connect too."""

    def save(self, path: str) -> None:
        """Save to a folder.

        Raises:
            ModelError: the folder is there already, and `overwrite` was not asked for.
        """
        target = _resolved(self.sparkSession, path)
        storage = Storage(target)
        if self.shouldOverwrite:
            storage.remove(target)
        elif storage.exists(target):
            msg = f"{target} is there already: write().overwrite().save(path) replaces it"
            raise ModelError(msg)
        self.saveImpl(target)


class EstimatorWriter(_Writer):
    """Writes an estimator's params; functions by their names."""

    def __init__(self, instance: KerasEstimator) -> None:
        super().__init__()
        self.instance = instance

    def save(self, path: str) -> None:
        """Save to a folder.

        Raises:
            ConfigError: `modelFn` or `callbacks` cannot be imported by a name; nothing is written.
            ModelError: the folder is there already, and `overwrite` was not asked for.
        """
        self._params()
        super().save(path)

    def saveImpl(self, path: str) -> None:
        """Write the params."""
        DefaultParamsWriter.saveMetadata(
            self.instance, spark_uri(path), _context(self.sparkSession), paramMap=self._params()
        )

    def _params(self) -> dict[str, Any]:
        values = {param.name: value for param, value in self.instance._paramMap.items()}  # noqa: SLF001 - as pyspark's writers
        for name in _FUNCTIONS:
            if name in values:
                values[name] = function_name(values[name], param=name)
        return values


class EstimatorReader(MLReader[E], Generic[E]):
    """Reads an estimator."""

    def __init__(self, kind: type[E]) -> None:
        super().__init__()
        self._kind = kind

    def load(self, path: str) -> E:
        """Load an estimator of this class.

        Raises:
            ModelError: the folder holds another class.
        """
        instance = self._kind()
        _restore(instance, _metadata(self.sparkSession, path, self._kind))
        return instance


class ModelWriter(_Writer):
    """Writes a model's params, and copies the exported model beside them."""

    def __init__(self, instance: KerasModel) -> None:
        super().__init__()
        self.instance = instance

    def saveImpl(self, path: str) -> None:
        """Copy the model, then write the params: without them there is no saved model."""
        _copy_folder(self.instance.exported.path, join(path, _MODEL))
        DefaultParamsWriter.saveMetadata(
            self.instance,
            spark_uri(path),
            _context(self.sparkSession),
            extraMetadata={
                "keras": {"runId": self.instance.runId, "history": self.instance.history}
            },
        )


class ModelReader(MLReader[M], Generic[M]):
    """Reads a model."""

    def __init__(self, kind: type[M]) -> None:
        super().__init__()
        self._kind = kind

    def load(self, path: str) -> M:
        """Load a model of this class; its checksum is verified.

        Raises:
            ModelError: the folder holds another class, or the model is not what was saved.
        """
        metadata = _metadata(self.sparkSession, path, self._kind)
        found = metadata["keras"]
        folder = join(_resolved(self.sparkSession, path), _MODEL)
        instance = self._kind(folder, found["runId"], found["history"])
        _restore(instance, metadata)
        instance.exported  # noqa: B018 - opens it, so that a damaged model is met here
        return instance


def _copy_folder(source: str, target: str) -> None:
    """Copy all files of a folder, also from one file system to another."""
    here, there = Storage(source), Storage(target)
    for name in here.files(source):
        with here.open(join(source, name)) as old, there.open(join(target, name), "wb") as new:
            shutil.copyfileobj(old, new)


def _metadata(spark: SparkSession, path: str, kind: type) -> dict[str, Any]:
    where = spark_uri(_resolved(spark, path))
    found: dict[str, Any] = DefaultParamsReader.loadMetadata(where, _context(spark))
    expected = f"{kind.__module__}.{kind.__name__}"
    if found["class"] != expected:
        msg = f"{where} holds a {found['class']}, expected {expected}: load it by its own class"
        raise ModelError(msg)
    return found


def _restore(instance: Any, metadata: dict[str, Any]) -> None:  # noqa: ANN401 - of either kind
    instance._resetUid(metadata["uid"])  # noqa: SLF001 - as pyspark's readers
    DefaultParamsReader.getAndSetParams(instance, metadata)

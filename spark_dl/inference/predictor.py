"""Executor side of inference: a SavedModel, loaded once per Python worker, over Arrow columns.

Knows nothing of Spark; TensorFlow is imported when the first model is loaded.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from spark_dl.errors import ModelError
from spark_dl.inference.arrow import to_arrow, to_numpy
from spark_dl.storage.cache import local_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from spark_dl.inference.model import ModelOutput
    from spark_dl.schema import SpecEntry

__all__ = ["Compute", "Predictor", "ScoringTask", "load_predictor"]

logger = logging.getLogger(__name__)

#: Models that one Python worker keeps: a query rarely has more, and a finished query's model leaves
#: in time.
_MODELS_KEPT = 4


@dataclass(frozen=True, kw_only=True)
class ScoringTask:
    """What a task needs to know about the model: plain values, they travel to the executors.

    Attributes:
        path: folder of the SavedModel, as the executors see it.
        checksum: its checksum; another content at the same path is another model.
        features: the inputs, in the order of the columns handed over.
        outputs: the outputs by name.
        columns: name of each output's column.
        batch_size: most rows that the model gets at once.
    """

    path: str
    checksum: str
    features: tuple[SpecEntry, ...]
    outputs: Mapping[str, ModelOutput]
    columns: Mapping[str, str]
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What the task may use.

    Attributes:
        num_threads: threads of TensorFlow, those of the task's cores.
        gpus: indexes of the GPUs that Spark gave to the task; none hides all of them.
    """

    num_threads: int = 1
    gpus: tuple[int, ...] = ()


class Predictor:
    """A loaded model.

    Args:
        function: takes the inputs by feature name (batch first), gives the outputs by name.
        task: the model's description.
    """

    def __init__(
        self,
        function: Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]],
        task: ScoringTask,
    ) -> None:
        """Keep the function."""
        self._function = function
        self._task = task

    def predict(self, arrays: Sequence[pa.Array]) -> pa.StructArray:
        """Return the predictions of one Arrow batch.

        Args:
            arrays: one column a feature, in the task's order.

        Returns:
            One row an input row, one field an output.

        Raises:
            DataError: a null or a wrong length; names the column.
            ModelError: the model gave something else than its description promises.
        """
        rows = len(arrays[0])
        parts = [
            self._predict_slice([a.slice(start, self._task.batch_size) for a in arrays])
            for start in range(0, rows, self._task.batch_size)
        ] or [self._no_rows()]
        columns = [
            part[0] if len(part) == 1 else pa.concat_arrays(part)
            for part in zip(*parts, strict=True)
        ]
        return pa.StructArray.from_arrays(columns, list(self._task.columns.values()))

    def _predict_slice(self, arrays: Sequence[pa.Array]) -> list[pa.Array]:
        features = self._task.features
        inputs = {
            entry.name: to_numpy(array, entry)
            for entry, array in zip(features, arrays, strict=True)
        }
        outputs = self._function(inputs)
        return [
            to_arrow(outputs[name], name, output) for name, output in self._task.outputs.items()
        ]

    def _no_rows(self) -> list[pa.Array]:
        return [
            to_arrow(np.empty((0, *(dim or 0 for dim in output.shape)), dtype=object), name, output)
            for name, output in self._task.outputs.items()
        ]


def load_predictor(task: ScoringTask, compute: Compute) -> Predictor:
    """Return the predictor of a model, loading it only if this process has not done so yet.

    Raises:
        ModelError: the SavedModel cannot be loaded, or its signature does not take the features.
    """
    _limit_tensorflow(compute)
    _, signature = _load(task.path, task.checksum)
    wanted = {name: spec.dtype for name, spec in signature.structured_input_signature[1].items()}
    names = [entry.name for entry in task.features]
    if set(wanted) != set(names):
        msg = (
            f"the model at {task.path} takes the inputs {sorted(wanted)}, its feature_spec.json "
            f"lists {sorted(names)}: "
            f"export the model again"
        )
        raise ModelError(msg)

    def function(inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        import tensorflow as tf

        tensors = {name: tf.convert_to_tensor(inputs[name], wanted[name]) for name in wanted}
        return {name: value.numpy() for name, value in signature(**tensors).items()}

    return Predictor(function, task)


@functools.lru_cache(maxsize=_MODELS_KEPT)
def _load(path: str, checksum: str) -> tuple[Any, Any]:
    """Return the model and its signature, which alone would not keep the variables alive."""
    import tensorflow as tf

    logger.info("loading the model at %s (%s)", path, checksum)
    try:
        with local_copy(path, checksum) as folder:
            loaded = tf.saved_model.load(folder)
        signature = loaded.signatures["serving_default"]
    except (OSError, KeyError, ValueError) as error:
        msg = f"the SavedModel at {path} cannot be served: {type(error).__name__}: {error}"
        raise ModelError(msg) from error
    return loaded, signature


@functools.lru_cache(maxsize=1)
def _limit_tensorflow(compute: Compute) -> None:
    """Keep TensorFlow to the task's cores and GPUs, once per process."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(compute.num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(compute.num_threads)
        gpus = [
            gpu for i, gpu in enumerate(tf.config.list_physical_devices("GPU")) if i in compute.gpus
        ]
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            # several tasks may share one GPU
            tf.config.experimental.set_memory_growth(gpu, enable=True)
    except RuntimeError as error:
        logger.warning(
            "TensorFlow was started earlier in this process, its settings stay: %s", error
        )

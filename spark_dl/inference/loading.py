"""Executor side: models in a Python worker's memory, each loaded once and shared by its tasks.

Knows nothing of Spark. No pickled code is ever loaded: a SavedModel is a graph, a ``.keras`` file
is read in Keras' safe mode.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from spark_dl.errors import DataError, ModelError
from spark_dl.inference.keras_files import brief_reason, read_keras, served_function
from spark_dl.keras_extras import import_on_demand
from spark_dl.storage import Storage, is_local, join
from spark_dl.storage.cache import local_copy
from spark_dl.storage.checksum import file_checksum
from spark_dl.storage.tokens import keep_tokens
from spark_dl.worker_process import settle_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

__all__ = [
    "Compute",
    "LoadedModel",
    "ModelFile",
    "load_compiled",
    "load_model",
]

logger = logging.getLogger(__name__)

#: What the models of one Python worker may take together, by the size of their files; the newest
#: one stays whatever it takes.
_KEPT_BYTES: Final = 1 << 30
_SIGNATURE: Final = "serving_default"

ModelKind = Literal["exported", "saved_model", "keras"]


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model as a task is told of it.

    Attributes:
        path: its folder, or its ``.keras`` file; a URI is copied to the executor to be loaded.
        checksum: its checksum; another content at the same path is another model.
        kind: ``exported`` by a run of ours, ``saved_model`` of any origin, or ``keras``.
        allow_lambda: whether a ``.keras`` file may hold Lambda layers, which are code.
        tokens: delegation tokens that open it. An executor's Python workers have those only that
            their container began with, and Spark tells its own JVMs alone of newer ones.
    """

    path: str
    checksum: str
    kind: ModelKind = "exported"
    allow_lambda: bool = False
    tokens: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What the task may use.

    Attributes:
        num_threads: threads of TensorFlow, those of the task's cores.
        gpus: indexes of the GPUs that Spark gave to the task; none hides all of them.
    """

    num_threads: int = 1
    gpus: tuple[int, ...] = ()


class LoadedModel:
    """A model in memory.

    Args:
        function: a concrete function that takes tensors by input name.
        inputs: TensorFlow's specs of them.
        owner: what keeps the variables alive; a function alone does not.
        num_bytes: size of its files.
    """

    def __init__(
        self,
        function: Any,  # noqa: ANN401 - TensorFlow's
        inputs: Mapping[str, Any],
        owner: object,
        num_bytes: int,
    ) -> None:
        """Keep them."""
        self._function = function
        self._owner = owner
        self.inputs = dict(inputs)
        self.outputs = dict(function.structured_outputs)
        self.num_bytes = num_bytes

    def check_inputs(self, names: Sequence[str], path: str) -> None:
        """Check that the model takes just these inputs.

        Raises:
            ModelError: it takes others.
        """
        if set(self.inputs) != set(names):
            msg = (
                f"the model at {path} takes the inputs {sorted(self.inputs)}, its description "
                f"lists {sorted(names)}: export the model again"
            )
            raise ModelError(msg)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs by name.

        Raises:
            DataError: the model refuses values, such as an index outside an embedding.
        """
        import tensorflow as tf

        tensors = {name: _tensor(inputs[name], spec.dtype) for name, spec in self.inputs.items()}
        try:
            return {name: value.numpy() for name, value in self._function(**tensors).items()}
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            msg = f"the model refuses the values: {brief_reason(error.message)}"
            raise DataError(msg) from error


def _tensor(values: npt.NDArray[Any], dtype: Any) -> Any:  # noqa: ANN401 - TensorFlow's
    import tensorflow as tf

    if dtype.is_compatible_with(values.dtype) or values.dtype == object:
        return tf.convert_to_tensor(values, dtype)
    return tf.cast(tf.convert_to_tensor(values), dtype)


class _Cache:
    """Models by file, the least recently used first; limited by the size of their files."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._models: OrderedDict[ModelFile, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        self.num_loads = 0

    def get(self, file: ModelFile) -> LoadedModel:
        with self._lock:
            if file not in self._models:
                self._models[file] = _load(file)
                self.num_loads += 1
            self._models.move_to_end(file)
            while len(self._models) > 1 and self._size() > self._limit_bytes:
                left, _ = self._models.popitem(last=False)
                logger.info("the model at %s makes room", left.path)
            return self._models[file]

    def _size(self) -> int:
        return sum(model.num_bytes for model in self._models.values())


_cache = _Cache(_KEPT_BYTES)


def load_model(file: ModelFile, compute: Compute) -> LoadedModel:
    """Return a model, loading it only if this process does not hold it yet.

    Raises:
        ModelError: it cannot be loaded.
    """
    _limit_tensorflow(compute)
    return _cache.get(file)


def load_compiled(file: ModelFile, compute: Compute) -> Any:  # noqa: ANN401 - Keras'
    """Return the Keras model of a ``.keras`` file with its loss and metrics; kept like any other.

    Raises:
        ModelError: it cannot be loaded, or was saved without loss and metrics.
    """
    _limit_tensorflow(compute)
    return _compiled(file)


@functools.lru_cache(maxsize=1)
def _compiled(file: ModelFile) -> Any:  # noqa: ANN401 - Keras'
    with _local_copy(file) as path:
        model = read_keras(file, path, compile=True)
    model.jit_compile = False  # XLA compiles anew for each number of rows
    if not model.compiled:
        msg = f"the model at {file.path} was saved without loss and metrics: compile it, then save"
        raise ModelError(msg)
    return model


def _load(file: ModelFile) -> LoadedModel:
    logger.info("loading the model at %s (%s)", file.path, file.checksum)
    with _local_copy(file) as path:
        if file.kind == "keras":
            return _load_keras(file, path)
        return _load_saved_model(file, path)


@contextlib.contextmanager
def _local_copy(file: ModelFile) -> Iterator[str]:
    """Give a path that TensorFlow can read; it is not needed once the model is loaded."""
    if file.tokens is not None:
        keep_tokens(file.tokens)
    if file.kind != "keras":
        with local_copy(file.path, file.checksum) as folder:
            yield folder
        return
    if is_local(file.path):
        yield file.path
        return
    with tempfile.TemporaryDirectory(prefix="spark-dl-model-") as folder:
        target = join(folder, "model.keras")
        with Storage(file.path).open(file.path) as source:
            _write(target, source)
        found = file_checksum(target)
        if found != file.checksum:
            msg = (
                f"the model at {file.path} changed while it was being read: its checksum is "
                f"{found}, expected {file.checksum}; score again"
            )
            raise ModelError(msg)
        yield target


def _write(path: str, source: Any) -> None:  # noqa: ANN401 - any file
    import shutil

    with open(path, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _num_bytes(path: str) -> int:
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(join(folder, name)) for folder, _, names in os.walk(path) for name in names
    )


def _load_saved_model(file: ModelFile, path: str) -> LoadedModel:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(path)
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        msg = f"the SavedModel at {file.path} cannot be served: {type(error).__name__}: {error}"
        raise ModelError(msg) from error
    signatures = dict(loaded.signatures)
    if _SIGNATURE not in signatures and len(signatures) != 1:
        msg = (
            f"the SavedModel at {file.path} has no signature {_SIGNATURE!r} "
            f"(signatures: {', '.join(signatures) or 'none'}): export it with one"
        )
        raise ModelError(msg)
    function = signatures.get(_SIGNATURE) or next(iter(signatures.values()))
    inputs = function.structured_input_signature[1]
    return LoadedModel(function, inputs, loaded, _num_bytes(path))


def _load_keras(file: ModelFile, path: str) -> LoadedModel:
    model = read_keras(file, path, compile=False)
    function, inputs = served_function(file, model)
    return LoadedModel(function, inputs, model, _num_bytes(path))


@functools.lru_cache(maxsize=1)
def _limit_tensorflow(compute: Compute) -> None:
    """Keep TensorFlow to the task's cores and GPUs, and settle the process, once."""
    import_on_demand()
    import tensorflow as tf

    settle_process()
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

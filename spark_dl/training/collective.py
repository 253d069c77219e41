"""What ranks do together: mean of gradients, sums of metrics, a broadcast.

Keras 3 cannot `fit` inside `MultiWorkerMirroredStrategy`, so the strategy serves as a transport
only: the model is built outside its scope, and tensors are reduced through its replica context.
Tensors travel in flat buckets (`spark_dl.training.buckets`), which is twice as fast as a list of
small ones; rows of embeddings' gradients are gathered as they are, where that is less.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from spark_dl.errors import ConfigError
from spark_dl.training.buckets import Piece, plan_buckets
from spark_dl.training.sparse import mean_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from spark_dl.training.sparse import Gradient

__all__ = ["Collective", "MultiWorkerCollective", "form_collective"]

logger = logging.getLogger(__name__)


class Collective:
    """The collective of one rank alone; also the interface of larger ones.

    Attributes:
        rank: this rank.
        world_size: number of ranks.
    """

    rank = 0
    world_size = 1

    def mean(self, tensors: Sequence[Gradient]) -> list[Gradient]:
        """Return the mean of each tensor over the ranks; usable inside a `tf.function`.

        Args:
            tensors: of the same dtypes and shapes on all ranks; only of a `tf.IndexedSlices` may
                the number of rows differ. `None` stays `None`.

        Returns:
            what was given, averaged; a `tf.IndexedSlices` holds the rows of all ranks, or is a
            dense tensor where that is less.
        """
        return list(tensors)

    def strategy(self) -> tf.distribute.Strategy:
        """Return TensorFlow's strategy over these ranks."""
        return tf.distribute.get_strategy()

    def sum_arrays(
        self, arrays: Sequence[npt.NDArray[np.generic]]
    ) -> list[npt.NDArray[np.float64]]:
        """Return the sum of each array over the ranks, computed in float64."""
        return [np.asarray(array, np.float64) for array in arrays]

    def broadcast(self, arrays: Sequence[npt.NDArray[np.generic]]) -> list[npt.NDArray[np.generic]]:
        """Return rank 0's arrays, bit for bit; shapes and dtypes must be the same on all ranks."""
        return list(arrays)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.sum_arrays([np.ones(1)])


class MultiWorkerCollective(Collective):
    """Collectives over TensorFlow's own runtime; TF_CONFIG must be set.

    Args:
        rank: this rank.
        world_size: number of ranks.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        """Form the cluster; waits for the other ranks."""
        self.rank = rank
        self.world_size = world_size
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation.AUTO
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        # tensors must lie on the strategy's own device, else "destinations can not be empty"
        self._device = self._strategy.extended.worker_devices[0]
        self._sum = tf.function(self.sum, reduce_retracing=True)

    def strategy(self) -> tf.distribute.Strategy:
        """Return TensorFlow's strategy over these ranks."""
        return self._strategy

    def _reduce(self, operation: str, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Reduce flat tensors."""

        def replica(values: list[tf.Tensor]) -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            reduced: list[tf.Tensor] = context.all_reduce(operation, values)
            return reduced

        result: list[tf.Tensor] = self._strategy.run(replica, args=(self._placed(tensors),))
        return result

    def _placed(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        with tf.device(self._device):
            return [tf.identity(tensor) for tensor in tensors]

    def mean(self, tensors: Sequence[Gradient]) -> list[Gradient]:
        """Return the mean of each tensor over the ranks; see `Collective.mean`."""
        means = list(tensors)
        dense = []
        for index, tensor in enumerate(tensors):
            if isinstance(tensor, tf.IndexedSlices):
                gathered = mean_slices(tensor, self)
                means[index] = tf.convert_to_tensor(tensor) if gathered is None else gathered
                if gathered is not None:
                    continue
            if tensor is not None:
                dense.append(index)
        pieces = [_piece(means[index]) for index in dense]
        for bucket in plan_buckets(pieces):
            indices = [dense[number] for number in bucket]
            reduced = self._mean_bucket([means[index] for index in indices])
            for index, mean in zip(indices, reduced, strict=True):
                means[index] = mean
        return means

    def _mean_bucket(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Reduce tensors of one dtype as one flat tensor."""
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        (reduced,) = self._reduce("mean", [flat])
        parts = tf.split(reduced, [tf.size(tensor) for tensor in tensors])
        return [
            tf.ensure_shape(tf.reshape(part, tf.shape(tensor)), tensor.shape)
            for part, tensor in zip(parts, tensors, strict=True)
        ]

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum of a tensor over the ranks; usable inside a `tf.function`."""
        return self._reduce("sum", [tensor])[0]

    def gather(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the rows of all ranks, in order of rank; only inside a `tf.function`.

        Args:
            tensors: ``[rows, …]``; ranks may differ in their rows.
        """

        def replica(values: list[tf.Tensor]) -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            return [context.all_gather(value, axis=0) for value in values]

        gathered: list[tf.Tensor] = self._strategy.run(replica, args=(self._placed(tensors),))
        return gathered

    def sum_arrays(
        self, arrays: Sequence[npt.NDArray[np.generic]]
    ) -> list[npt.NDArray[np.float64]]:
        """Return the sum of each array over the ranks, computed in float64."""
        return _through_flat(
            arrays, np.dtype(np.float64), lambda flat: self._sum(tf.constant(flat)).numpy()
        )

    def broadcast(self, arrays: Sequence[npt.NDArray[np.generic]]) -> list[npt.NDArray[np.generic]]:
        """Return rank 0's arrays, bit for bit: as integers, to which the others add zeros."""
        raw = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        words = np.frombuffer(raw + bytes(-len(raw) % 8), np.int64)
        mine = words if self.rank == 0 else np.zeros_like(words)
        data = self._sum(tf.constant(mine)).numpy().tobytes()
        received = []
        start = 0
        for array in arrays:
            end = start + array.nbytes
            received.append(np.frombuffer(data[start:end], array.dtype).reshape(array.shape))
            start = end
        return received


def _piece(tensor: tf.Tensor) -> Piece:
    elements = tensor.shape.num_elements()
    size_bytes = None if elements is None else elements * tensor.dtype.size
    return Piece(tensor.dtype.name, size_bytes)


def _through_flat(
    arrays: Sequence[npt.NDArray[np.generic]],
    dtype: np.dtype[np.float64],
    reduce: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> list[npt.NDArray[np.float64]]:
    flat = np.concatenate(
        [np.zeros(0, dtype), *(np.asarray(array, dtype).reshape(-1) for array in arrays)]
    )
    reduced = reduce(flat)
    ends = np.cumsum([np.size(array) for array in arrays])[:-1]
    return [
        part.reshape(np.shape(array))
        for part, array in zip(np.split(reduced, ends), arrays, strict=True)
    ]


def form_collective(rank: int, world_size: int, *, cores: int) -> Collective:
    """Set TensorFlow's threads to the task's cores and form the cluster.

    Args:
        rank: this rank.
        world_size: number of ranks.
        cores: CPU cores of the Spark task.

    Raises:
        ConfigError: TensorFlow was used before in this process, so that neither can be set any
            more.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(cores)
        # one more than the cores: a step that waits in a collective must not starve the input
        # pipeline
        tf.config.threading.set_inter_op_parallelism_threads(cores + 1)
    except RuntimeError as error:
        msg = (
            "TensorFlow ran before the cluster was formed (at the import of the model's module?): "
            f"{error}"
        )
        raise ConfigError(msg) from error
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    return Collective() if world_size == 1 else MultiWorkerCollective(rank, world_size)

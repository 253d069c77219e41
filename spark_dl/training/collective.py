"""What ranks do together: mean of gradients, sums of metrics, a broadcast.

Keras 3 cannot `fit` inside `MultiWorkerMirroredStrategy`, so the strategy serves as a transport
only: the model is built outside its scope. Tensors travel in flat buckets
(`spark_dl.training.buckets`), which is twice as fast as a list of small ones; on GPUs through the
strategy, in main memory through connections of our own (`spark_dl.training.ring`), several times as
fast as through gRPC. Rows of embeddings' gradients are gathered as they are, where that is less.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from spark_dl.errors import ConfigError, ResourceError
from spark_dl.training.buckets import Piece, plan_buckets
from spark_dl.training.ring import TOKEN_BYTES, Entrance, Ring
from spark_dl.training.sparse import mean_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from spark_dl.errors import WorkerLostError
    from spark_dl.ports import PortRange
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

    @property
    def lost(self) -> WorkerLostError | None:
        """What is known of a rank that is gone; an error of a step is its consequence then."""
        return None

    @property
    def summed_s(self) -> float | None:
        """Seconds that this rank has spent in sums, waiting included; `None`: not known."""
        return None

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

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum of a tensor over the ranks; usable inside a `tf.function`."""
        return tensor

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
    """Collectives over the cluster that TF_CONFIG tells of.

    Args:
        rank: this rank.
        world_size: number of ranks.
        timeout_s: how long ranks may wait for each other until they are connected.
        ports: where the ranks' own ports must lie; by default anywhere.
    """

    def __init__(
        self, rank: int, world_size: int, *, timeout_s: float, ports: PortRange | None = None
    ) -> None:
        """Form the cluster; waits for the other ranks."""
        self.rank = rank
        self.world_size = world_size
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation.AUTO
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        # tensors must lie on the strategy's own device, else "destinations can not be empty"
        self._device = self._strategy.extended.worker_devices[0]
        self._strategy_sum = tf.function(
            lambda tensor: self._through_strategy("sum", tensor),
            reduce_retracing=True,
            autograph=False,
        )
        self._ring: Ring | None = None
        if not tf.config.list_physical_devices("GPU"):
            self._ring = self._join_ring(timeout_s, ports)
            # what orders the ring's sums within a function as they stand in it
            self._order = tf.Variable(0, trainable=False)

    def _join_ring(self, timeout_s: float, ports: PortRange | None) -> Ring | None:
        """Tell the others by TensorFlow's cluster where this rank listens, and connect.

        Returns:
            the ring; `None` on all ranks where one of them has no port for it.
        """
        cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
        tasks = [*cluster.job_tasks("chief")]
        tasks += cluster.job_tasks("worker") if "worker" in cluster.jobs else []
        hosts = [address.rpartition(":")[0].strip("[]") for address in tasks]
        told = np.zeros(self.world_size + TOKEN_BYTES // 8, np.int64)
        entrance = None
        try:
            entrance = Entrance(hosts[self.rank], ports)
            told[self.rank] = entrance.port
        except ResourceError as error:
            logger.warning("gradients go through TensorFlow's slower connections: %s", error)
        if self.rank == 0:
            told[self.world_size :] = np.frombuffer(secrets.token_bytes(TOKEN_BYTES), np.int64)
        shared = self._strategy_sum(tf.constant(told)).numpy()
        entrances = shared[: self.world_size].tolist()
        token = shared[self.world_size :].tobytes()
        if entrance is None or not all(entrances):
            if entrance is not None:
                entrance.close()
            return None
        addresses = list(zip(hosts, entrances, strict=True))
        return Ring.join(self.rank, addresses, entrance, token, timeout_s=timeout_s)

    @property
    def lost(self) -> WorkerLostError | None:
        """What is known of a rank that is gone."""
        return None if self._ring is None else self._ring.lost

    @property
    def summed_s(self) -> float | None:
        """Seconds in sums; TensorFlow's own, on GPUs, are not measured."""
        return None if self._ring is None else self._ring.summed_s

    def strategy(self) -> tf.distribute.Strategy:
        """Return TensorFlow's strategy over these ranks."""
        return self._strategy

    def _through_strategy(self, operation: str, tensor: tf.Tensor) -> tf.Tensor:
        def replica(values: list[tf.Tensor]) -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            reduced: list[tf.Tensor] = context.all_reduce(operation, values)
            return reduced

        return self._strategy.run(replica, args=(self._placed([tensor]),))[0]

    def _through_ring(self, ring: Ring, flat: tf.Tensor) -> tf.Tensor:
        """Sum in Python; TensorFlow's threads go on meanwhile."""
        with tf.device("CPU:0"):
            turn = self._order.read_value()
            total = tf.numpy_function(lambda array, _: ring.sum(array), [flat, turn], flat.dtype)
            with tf.control_dependencies([total]):
                self._order.assign_add(1)  # the next sum reads it, hence comes after this one
        return tf.ensure_shape(total, flat.shape)

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
        if self._ring is None:
            reduced = self._through_strategy("mean", flat)
        else:
            total = self._through_ring(self._ring, flat)
            reduced = tf.cast(total / tf.cast(self.world_size, total.dtype), total.dtype)
        parts = tf.split(reduced, [tf.size(tensor) for tensor in tensors])
        return [
            tf.ensure_shape(tf.reshape(part, tf.shape(tensor)), tensor.shape)
            for part, tensor in zip(parts, tensors, strict=True)
        ]

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the sum of a tensor over the ranks; usable inside a `tf.function`."""
        if self._ring is None:
            return self._through_strategy("sum", tensor)
        flat = self._through_ring(self._ring, tf.reshape(tensor, [-1]))
        return tf.reshape(flat, tf.shape(tensor))

    def _sum_array(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        if self._ring is not None:
            return self._ring.sum(array)
        summed: npt.NDArray[np.generic] = self._strategy_sum(tf.constant(array)).numpy()
        return summed

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
        flat = np.concatenate(
            [np.zeros(0), *(np.asarray(array, np.float64).reshape(-1) for array in arrays)]
        )
        ends = np.cumsum([np.size(array) for array in arrays])[:-1]
        parts = np.split(np.asarray(self._sum_array(flat), np.float64), ends)
        return [part.reshape(np.shape(array)) for part, array in zip(parts, arrays, strict=True)]

    def broadcast(self, arrays: Sequence[npt.NDArray[np.generic]]) -> list[npt.NDArray[np.generic]]:
        """Return rank 0's arrays, bit for bit: as integers, to which the others add zeros."""
        raw = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        words = np.frombuffer(raw + bytes(-len(raw) % 8), np.int64)
        mine = words if self.rank == 0 else np.zeros_like(words)
        data = self._sum_array(mine).tobytes()
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


def form_collective(
    rank: int,
    world_size: int,
    *,
    cores: int,
    timeout_s: float = 120.0,
    ports: PortRange | None = None,
) -> Collective:
    """Set TensorFlow's threads to the task's cores and form the cluster.

    Args:
        rank: this rank.
        world_size: number of ranks.
        cores: CPU cores of the Spark task.
        timeout_s: how long ranks may wait for each other until they are connected.
        ports: where the ranks' own ports must lie; by default anywhere.

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
    if world_size == 1:
        return Collective()
    return MultiWorkerCollective(rank, world_size, timeout_s=timeout_s, ports=ports)

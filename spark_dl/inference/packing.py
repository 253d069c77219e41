"""Arrays that cross to Python and back as binaries of their numbers.

Driver side. Spark writes an array into Arrow, and reads one from it, number by number; a binary is
copied at once, which costs less than the way there and back of a function that does nothing. The
functions that pack and unpack are the connector's; a session without it hands over arrays.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from spark_dl._jvm import register_packing
from spark_dl.inference.inputs import PACKABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import Column, SparkSession

    from spark_dl.inference.inputs import BoundInput
    from spark_dl.inference.model import ModelOutput
    from spark_dl.inference.predictor import ScoringTask

__all__ = ["pack", "packable_inputs", "packable_outputs", "packed", "unpacked"]

#: Arrow's binaries of one batch lie within 32 bits.
_MOST_BYTES: Final = 2**31 - 1
_BATCH_ROWS: Final = "spark.sql.execution.arrow.maxRecordsPerBatch"


def pack(task: ScoringTask, spark: SparkSession) -> ScoringTask:
    """Return a task whose arrays cross packed: those that can, if the session can pack.

    Args:
        task: the task.
        spark: the session of its table.
    """
    rows = int(spark.conf.get(_BATCH_ROWS) or 0)
    inputs = packable_inputs(task.inputs, rows)
    outputs = packable_outputs(task.outputs, task.batch_size)
    if not (inputs or outputs) or not register_packing(spark):
        return task
    crossing = tuple(
        dataclasses.replace(one, kind="packed") if one.name in inputs else one
        for one in task.inputs
    )
    return dataclasses.replace(task, inputs=crossing, packed=outputs)


def packable_inputs(inputs: Sequence[BoundInput], batch_rows: int) -> frozenset[str]:
    """Return the names of the inputs that are arrays of numbers, all rows of one length.

    Args:
        inputs: the inputs and their columns.
        batch_rows: most rows that Spark hands over at once; 0 if there is no limit.
    """
    return frozenset(
        one.name
        for one in inputs
        if one.kind == "array"
        and one.size is not None
        and one.element in PACKABLE
        # what a narrower dtype cannot hold is looked for in Arrow's numbers
        and not one.dtype.startswith("uint")
        and batch_rows > 0
        and _fits(batch_rows, one.size, PACKABLE[one.element])
    )


def packable_outputs(outputs: Mapping[str, ModelOutput], batch_size: int) -> frozenset[str]:
    """Return the names of the outputs that are vectors of one length.

    Args:
        outputs: the model's outputs.
        batch_size: most rows that the model gets at once.
    """
    return frozenset(
        name
        for name, output in outputs.items()
        if len(output.dims) == 1
        and output.dims[0] is not None
        and output.numpy_dtype in PACKABLE.values()
        and _fits(batch_size, output.dims[0], output.numpy_dtype)
    )


def _fits(rows: int, size: int, dtype: str) -> bool:
    return rows * size * np.dtype(dtype).itemsize <= _MOST_BYTES


def packed(column: Column, size: int) -> Column:
    """Return arrays of numbers as binaries; of another length than `size`, as a mark of that."""
    from pyspark.sql import functions as sf

    return sf.call_function("spark_dl_pack", column, sf.lit(size))


def unpacked(column: Column, element: str) -> Column:
    """Return binaries as arrays of a Spark element type."""
    from pyspark.sql import functions as sf

    return sf.call_function("spark_dl_unpack", column, sf.lit(element))

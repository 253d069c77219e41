"""What a model takes, and which columns of a table give it.

Pure: types are Spark's `simpleString`, dtypes are TensorFlow's names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict

from spark_dl.errors import ModelError, did_you_mean
from spark_dl.schema import Feature

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spark_dl.schema import SpecEntry

    #: One input's column, as itself or with a cast; several scalar ones that make a vector.
    InputColumns = str | Feature | Sequence[str]

__all__ = [
    "PACKABLE",
    "BoundInput",
    "ModelInput",
    "TableColumn",
    "bind_inputs",
    "element_for",
    "remap_inputs",
    "spec_inputs",
    "usual_batch_size",
]

_SMALL: Final = ("boolean", "tinyint", "smallint")
_WHOLE: Final = (*_SMALL, "int", "bigint")

#: Element type in which a value crosses to Python: element types of a table that it is made of.
#: Whole numbers of a wider type are taken: one that does not fit becomes null, and its row a bad
#: row. ``double`` becomes float as `prepare` does it.
_TAKEN: Final[dict[str, tuple[str, ...]]] = {
    "float": ("float", "double", *_SMALL),
    "double": ("double", "float", *_SMALL, "int"),
    "boolean": ("boolean",),
    "tinyint": _WHOLE,
    "smallint": _WHOLE,
    "int": _WHOLE,
    "bigint": _WHOLE,
    "string": ("string",),
    "binary": ("binary", "string"),
    "date": ("date",),
    "timestamp": ("timestamp",),
}
#: TensorFlow's dtype of an input: the element types in which it may cross, the first is usual.
_CROSSES: Final[dict[str, tuple[str, ...]]] = {
    "float16": ("float",),
    "bfloat16": ("float",),
    "float32": ("float",),
    "float64": ("double",),
    "int8": ("tinyint",),
    "uint8": ("smallint",),
    "int16": ("smallint",),
    "uint16": ("int",),
    "int32": ("int",),
    "uint32": ("bigint",),
    "int64": ("bigint", "date", "timestamp"),
    "bool": ("boolean",),
    "string": ("string", "binary"),
}
#: Spark element types whose arrays can cross as binaries of their numbers: numpy's dtype of them.
PACKABLE: Final = {
    "smallint": "int16",
    "int": "int32",
    "bigint": "int64",
    "float": "float32",
    "double": "float64",
}
#: Rows that a model gets at once: light models gain up to the first, large images need some at
#: least; between them as many as make 4 MiB of float32, beyond which a convolution's own tensors
#: are slow to allocate.
_MOST_ROWS: Final = 4096
_LEAST_ROWS: Final = 32
_BATCH_NUMBERS: Final = 1 << 20
_VECTOR: Final = "vector"
#: dtypes that Spark's `vector_to_array` gives.
_VECTOR_ELEMENTS: Final = ("float", "double")


class ModelInput(BaseModel):
    """One input as the model declares it.

    Attributes:
        name: its name.
        dtype: TensorFlow's name of its dtype.
        shape: shape of one row's tensor, without the batch dimension; `None` is a variable one.
        columns: where a row's value comes from: one column, or several scalars that make a vector.
            A dot leads into a struct.
        fallback: column to take when the first is not there; empty for none.
        element: Spark element type in which it crosses; empty if the table's type decides.
        source_type: type of the column that the model was trained on; empty if unknown.
        cast: Spark SQL element type that the user wants the column cast to, accepting a loss.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    columns: tuple[str, ...]
    fallback: str = ""
    element: str = ""
    source_type: str = ""
    cast: str | None = None

    @property
    def size(self) -> int | None:
        """Number of elements of one row, `None` when it varies."""
        return None if None in self.shape else math.prod(dim or 0 for dim in self.shape)


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """A column of a table, or a field of a struct column.

    Attributes:
        type: Spark's `simpleString`.
        sql: how SQL is told its name.
    """

    type: str
    sql: str


@dataclass(frozen=True, kw_only=True)
class BoundInput:
    """An input and the column that gives it: what a task needs to know. Plain values.

    Attributes:
        name: the input's name.
        column: its column, for errors.
        dtype: TensorFlow's name of its dtype.
        shape: shape of one row's tensor.
        element: Spark element type in which it crosses.
        kind: ``scalar``, ``array``, ``bytes``: a binary that holds the elements themselves, or
            ``packed``: an array that is made such a binary on its way (see `packing`).
        sql: the expression that crosses; of a Spark ML vector, the column's name.
        is_vector: whether the column is a Spark ML vector.
    """

    name: str
    column: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    element: str = "float"
    kind: Literal["scalar", "array", "bytes", "packed"] = "scalar"
    sql: str = ""
    is_vector: bool = False

    @property
    def size(self) -> int | None:
        """Number of elements of one row, `None` when it varies."""
        return None if None in self.shape else math.prod(dim or 0 for dim in self.shape)

    @property
    def inner(self) -> tuple[int, ...]:
        """The dimensions that do not vary."""
        return tuple(dim for dim in self.shape if dim is not None)


def spec_inputs(features: Iterable[SpecEntry]) -> tuple[ModelInput, ...]:
    """Return the inputs of a model that was trained on a dataset."""
    return tuple(
        ModelInput(
            name=entry.name,
            dtype=entry.info.tensor,
            shape=entry.shape,
            columns=(entry.column,),
            fallback=entry.name,
            element=entry.info.spark,
            source_type=entry.source_type,
        )
        for entry in features
    )


def element_for(dtype: str) -> str:
    """Return the Spark element type that a dtype usually crosses in.

    Raises:
        ModelError: Spark has no type for it.
    """
    if dtype not in _CROSSES:
        msg = f"inputs of dtype {dtype} cannot be given by a table (known: {', '.join(_CROSSES)})"
        raise ModelError(msg)
    return _CROSSES[dtype][0]


def remap_inputs(
    inputs: Sequence[ModelInput],
    mapping: Mapping[str, InputColumns] | InputColumns | None,
    *,
    model: str,
) -> tuple[ModelInput, ...]:
    """Return the inputs with the columns that a user gave them.

    Args:
        inputs: the model's inputs.
        mapping: input name to column, `Feature`, or list of scalar columns; of a model with one
            input that alone. Inputs that it does not name keep theirs.
        model: the model's path, for the error.

    Raises:
        ModelError: the model has no such input, or the `Feature` contradicts it.
    """
    if mapping is None:
        return tuple(inputs)
    if isinstance(mapping, (str, Feature)) or not isinstance(mapping, Mapping):
        if len(inputs) != 1:
            names = ", ".join(one.name for one in inputs)
            msg = (
                f"the model at {model} has the inputs {names}: "
                "give a mapping of input name to column"
            )
            raise ModelError(msg)
        mapping = {inputs[0].name: mapping}
    known = [one.name for one in inputs]
    unknown = [name for name in mapping if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        msg = (
            f"the model at {model} has no input {', '.join(map(repr, unknown))}{hint} "
            f"(inputs: {', '.join(known)})"
        )
        raise ModelError(msg)
    return tuple(_given(one, mapping[one.name]) if one.name in mapping else one for one in inputs)


def _given(one: ModelInput, columns: InputColumns) -> ModelInput:
    update = {"fallback": "", "source_type": ""}
    if isinstance(columns, str):
        return one.model_copy(update={**update, "columns": (columns,)})
    if not isinstance(columns, Feature):
        return one.model_copy(update={**update, "columns": tuple(columns)})
    fits = columns.shape is None or (
        len(columns.shape) == len(one.shape)
        and all(
            None in pair or pair[0] == pair[1]
            for pair in zip(columns.shape, one.shape, strict=True)
        )
    )
    if not fits:
        msg = f"input {one.name!r} has shape {one.shape}, not {columns.shape}"
        raise ModelError(msg)
    if columns.cast is not None and columns.cast not in _TAKEN:
        hint = did_you_mean(columns.cast, _TAKEN)
        known = ", ".join(_TAKEN)
        msg = f"input {one.name!r}: cannot cast to {columns.cast!r}{hint} (one of {known})"
        raise ModelError(msg)
    shape = one.shape if columns.shape is None else columns.shape
    own = {"columns": (columns.column,), "cast": columns.cast, "shape": shape}
    return one.model_copy(update={**update, **own})


def bind_inputs(
    inputs: Sequence[ModelInput], table: Mapping[str, TableColumn], *, model: str
) -> tuple[BoundInput, ...]:
    """Find the column of every input and check that its type fits.

    Args:
        inputs: the model's inputs.
        table: the table's columns and the fields of its structs, by name.
        model: the model's path, for the error.

    Raises:
        ModelError: lists every input that has no column of a type that fits.
    """
    found = [_bind(one, table) for one in inputs]
    bound = tuple(one for one in found if isinstance(one, BoundInput))
    wrong = [one for one in found if isinstance(one, str)]
    if wrong:
        lines = "\n".join(f"  - {problem}" for problem in wrong)
        columns = ", ".join(f"{name} {column.type}" for name, column in table.items())
        msg = (
            f"the table does not fit the model at {model}:\n{lines}\n"
            f"(columns of the table: {columns})"
        )
        raise ModelError(msg)
    return bound


def usual_batch_size(inputs: Sequence[BoundInput]) -> int:
    """Return how many rows a model gets at once where nobody says it.

    Args:
        inputs: its inputs; of variable length, one counts as a single number.
    """
    numbers = sum(one.size or 1 for one in inputs)
    return min(_MOST_ROWS, max(_LEAST_ROWS, _BATCH_NUMBERS // max(1, numbers)))


def _bind(one: ModelInput, table: Mapping[str, TableColumn]) -> BoundInput | str:
    """Return the input with its column, or what is wrong."""
    names = one.columns
    if names[0] not in table and one.fallback in table:
        # in a dataset's own table the columns are called as the model's inputs
        names = (one.fallback,)
    for name in names:
        if name not in table:
            hint = did_you_mean(name, table)
            given = "" if name == one.name else f" (for input {one.name!r})"
            return f"column {name!r} is missing{hint}{given}"
    if len(names) > 1:
        return _bind_many(one, names, table)
    return _bind_one(one, names[0], table[names[0]])


def _bind_one(one: ModelInput, name: str, column: TableColumn) -> BoundInput | str:
    kind = column.type
    if kind == "binary" and one.dtype in ("uint8", "int8") and one.shape and one.size:
        return _bound(one, name, "binary", "bytes", column.sql)
    if kind == _VECTOR:
        element = one.element or element_for(one.dtype)
        if element not in _VECTOR_ELEMENTS or len(one.shape) != 1:
            return (
                f"column {name!r} is a vector, but input {one.name!r} is {one.dtype} of shape "
                f"{one.shape}: only a float vector fits"
            )
        return _bound(one, name, element, "array", column.sql, is_vector=True)
    is_array = kind.startswith("array<")
    got = kind.removeprefix("array<").removesuffix(">") if is_array else kind
    element = _element(one, got, kind)
    # a model's input of shape (1,) is a scalar in a table, as Keras' own examples feed it
    if (
        not element
        or (not is_array and one.shape not in ((), (1,)))
        or (is_array and not one.shape)
    ):
        return _mismatch(one, name, kind)
    wanted = f"array<{element}>" if is_array else element
    sql = column.sql
    if one.cast is not None:
        sql = f"try_cast({sql} AS {f'array<{one.cast}>' if is_array else one.cast})"
        kind = f"array<{one.cast}>" if is_array else one.cast
    if kind != wanted:
        # try_cast gives null where cast would end the job (ANSI mode): the row is then a bad one
        sql = f"try_cast({sql} AS {wanted})"
    return _bound(one, name, element, "array" if is_array else "scalar", sql)


def _bind_many(
    one: ModelInput, names: Sequence[str], table: Mapping[str, TableColumn]
) -> BoundInput | str:
    """Several scalar columns make a vector."""
    if len(one.shape) != 1 or one.size not in (None, len(names)):
        return f"input {one.name!r} of shape {one.shape} cannot be made of {len(names)} columns"
    element = one.element or element_for(one.dtype)
    wrong = [name for name in names if table[name].type not in _TAKEN[element]]
    if wrong:
        listed = ", ".join(f"{name!r} ({table[name].type})" for name in wrong)
        return f"columns {listed} cannot be {element} elements of input {one.name!r}"
    parts = ", ".join(f"try_cast({table[name].sql} AS {element})" for name in names)
    return _bound(one, ", ".join(names), element, "array", f"array({parts})")


def _element(one: ModelInput, got: str, kind: str) -> str:
    """Return the element type in which a column of elements `got` crosses; empty if none fits."""
    options = (one.element,) if one.element else _CROSSES[one.dtype]
    if one.cast is not None:
        got = one.cast
    if kind == one.source_type:
        return options[0]  # `prepare` cast it, asked or unasked
    return next((option for option in options if got in _TAKEN[option]), "")


def _mismatch(one: ModelInput, name: str, kind: str) -> str:
    element = one.element or element_for(one.dtype)
    wanted = f"array<{element}>" if one.shape else element
    trained = f" (trained on {one.source_type})" if one.source_type not in ("", wanted) else ""
    return (
        f"column {name!r} is {kind}, expected {wanted}{trained}: cast it in the query, "
        f"or accept the loss with inputs={{{one.name!r}: Feature({name!r}, cast={element!r})}}"
    )


def _bound(
    one: ModelInput,
    column: str,
    element: str,
    kind: Literal["scalar", "array", "bytes"],
    sql: str,
    *,
    is_vector: bool = False,
) -> BoundInput:
    return BoundInput(
        name=one.name,
        column=column,
        dtype=one.dtype,
        shape=one.shape,
        element=element,
        kind=kind,
        sql=sql,
        is_vector=is_vector,
    )

"""From a table's columns to a `FeatureSpec`, and from a spec to the columns that are written.

Driver side. pyspark is imported when a function runs, so that the rest of `schema` works without
it.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from spark_dl.errors import SchemaError, did_you_mean
from spark_dl.schema.spec import Feature, FeatureSpec, Role, SpecEntry
from spark_dl.schema.types import DTYPES, LOSSY_TYPES, DType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType, StructType

__all__ = ["LOSSLESS", "derive_spec", "quoted", "read_schema", "select_columns", "with_vocabulary"]

logger = logging.getLogger(__name__)

#: What `Feature.dtype` may turn a type into without losing a value.
LOSSLESS: Final[dict[DType, frozenset[DType]]] = {
    DType.BOOL: frozenset({DType.INT8, DType.INT16, DType.INT32, DType.INT64, DType.FLOAT32}),
    DType.INT8: frozenset({DType.INT16, DType.INT32, DType.INT64, DType.FLOAT32}),
    DType.INT16: frozenset({DType.INT32, DType.INT64, DType.FLOAT32}),
    DType.INT32: frozenset({DType.INT64}),
    DType.STRING: frozenset({DType.BINARY}),
}

_NUMBERS: Final = frozenset(
    {DType.BOOL, DType.INT8, DType.INT16, DType.INT32, DType.INT64, DType.FLOAT32}
)
_BY_SPARK_NAME: Final[dict[str, DType]] = {info.spark: dtype for dtype, info in DTYPES.items()}
_CAST_NAMES: Final[dict[str, DType]] = {
    **{dtype.value: dtype for dtype in DType},
    **_BY_SPARK_NAME,
    "byte": DType.INT8,
    "short": DType.INT16,
    "integer": DType.INT32,
    "long": DType.INT64,
    "real": DType.FLOAT32,
}
_HINTS: Final[dict[str, str]] = {
    "vector": "turn it into an array with pyspark.ml.functions.vector_to_array(column) first",
    "matrix": "turn it into an array of its values first",
    "map": "take its values out into columns of their own first",
    "struct": "select its fields into columns of their own first",
    "timestamp_ntz": "say that it is a point in time: Feature(..., cast='timestamp')",
    "void": "the column holds nothing but null: give it a type and values",
}


def derive_spec(
    schema: StructType,
    *,
    features: Sequence[str | Feature] | Mapping[str, str | Feature],
    label: str | Feature | None = None,
    weight: str | Feature | None = None,
    id: str | Sequence[str] | None = None,  # noqa: A002  the public word of `prepare`
) -> FeatureSpec:
    """Describe the columns that become a dataset.

    Args:
        schema: the table's schema.
        features: column names, or a mapping of input name to column name or `Feature`.
        label: column of the label: a number, a boolean, or text, whose places in a vocabulary are
            the classes (`with_vocabulary` adds it).
        weight: column of the sample weights, a number.
        id: columns that identify a row.

    Returns:
        the spec: features, label, weight, ids, in this order.

    Raises:
        SchemaError: a column is missing, used twice or of a type that does not fit; the message
            names it.

    Example:
        >>> from pyspark.sql.types import ArrayType, DoubleType, StructType
        >>> schema = StructType().add("pixels", ArrayType(DoubleType())).add("digit", "integer")
        >>> derive_spec(schema, features={"image": "pixels"}, label="digit")["image"].derived
        'cast double to float'
    """
    wanted = _wanted(features, label, weight, id)
    _refuse_reuse(wanted)
    entries = tuple(_entry(schema, name, feature, role) for name, feature, role in wanted)
    narrowed = [entry.column for entry in entries if entry.derived == _NARROWED]
    if narrowed:
        logger.info(
            "TFRecord holds no double: cast to float (32 bit): %s",
            ", ".join(dict.fromkeys(narrowed)),
        )
    return FeatureSpec(entries=entries)


def select_columns(entries: Iterable[SpecEntry]) -> list[Column]:
    """Return the expressions that turn the table's columns into the entries' columns.

    Prepare and predict both use them, so that a model is served what it was trained on.

    Args:
        entries: entries of a spec, in the order wanted.

    Returns:
        one expression an entry, called by the entry's name. A value that an explicit cast cannot
        convert is null.
    """
    from pyspark.sql import functions as sf

    columns = []
    for entry in entries:
        name = quoted(entry.column)
        written = _written_type(entry)
        if entry.vocabulary is not None:
            # array_position counts from 1; a text that is no label becomes null
            texts = sf.array(*(sf.lit(text) for text in entry.vocabulary))
            # not sf.array_position, which takes no column as the value on Spark 3.5
            place = sf.call_function("array_position", texts, sf.col(name).cast("string")) - 1
            column = sf.when(place >= 0, place)
        elif entry.source_type == written:
            column = sf.col(name)
        else:
            # try_cast gives null where cast would end the job (ANSI mode): our check then names
            # the column
            column = sf.expr(f"try_cast({name} AS {written})")
        columns.append(column.alias(entry.name))
    return columns


def with_vocabulary(spec: FeatureSpec, df: DataFrame) -> FeatureSpec:
    """Return the spec with the labels that `df` holds, if the label is text; reads that column.

    Args:
        spec: what `derive_spec` made.
        df: the rows.

    Raises:
        SchemaError: there are fewer than two labels, or too many to be classes.
    """
    from pyspark.sql import functions as sf

    label = spec.label
    if label is None or label.derived != _CLASSES:
        return spec
    column = sf.col(quoted(label.column)).cast("string")
    rows = df.select(column.alias("label")).distinct().limit(_MOST_LABELS + 2).collect()
    texts = sorted(row["label"] for row in rows if row["label"] is not None)
    what = f"label column {label.column!r} of type {label.source_type}"
    if len(texts) > _MOST_LABELS:
        msg = f"{what}: more than {_MOST_LABELS} different texts are no classes: name another label"
        raise SchemaError(msg)
    if len(texts) < 2:  # noqa: PLR2004 - one class teaches nothing
        msg = f"{what}: holds {texts or 'no text'}, expected at least two different labels"
        raise SchemaError(msg)
    known = label.model_copy(update={"vocabulary": tuple(texts)})
    entries = tuple(known if entry is label else entry for entry in spec.entries)
    return spec.model_copy(update={"entries": entries})


def read_schema(entries: Iterable[SpecEntry]) -> StructType:
    """Return the schema of the columns as they are written: exact types, no nulls in arrays."""
    from pyspark.sql import types as kinds

    written = {
        kind.simpleString(): kind
        for kind in (
            kinds.BooleanType(),
            kinds.ByteType(),
            kinds.ShortType(),
            kinds.IntegerType(),
            kinds.LongType(),
            kinds.FloatType(),
            kinds.StringType(),
            kinds.BinaryType(),
            kinds.DateType(),
            kinds.TimestampType(),
        )
    }
    fields = []
    for entry in entries:
        one: DataType = written[entry.info.spark]
        kind = kinds.ArrayType(one, containsNull=False) if entry.is_array else one
        fields.append(kinds.StructField(entry.name, kind))
    return kinds.StructType(fields)


#: The one cast that is made without being asked for.
_NARROWED: Final = "cast double to float"
#: What becomes of a label that is text.
_CLASSES: Final = "place in the vocabulary"
#: More labels than that are no classes.
_MOST_LABELS: Final = 10_000


def _wanted(
    features: Sequence[str | Feature] | Mapping[str, str | Feature],
    label: str | Feature | None,
    weight: str | Feature | None,
    ids: str | Sequence[str] | None,
) -> list[tuple[str, Feature, Role]]:
    if isinstance(features, str):
        msg = (
            f"features must be a list of columns or a mapping, got the text {features!r}: "
            f"write [{features!r}]"
        )
        raise SchemaError(msg)
    if hasattr(features, "items"):
        named = [(name, _feature(value)) for name, value in features.items()]
    else:
        named = [(_feature(value).column, _feature(value)) for value in features]
    if not named:
        msg = "no features: name at least one column"
        raise SchemaError(msg)
    wanted = [(name, feature, Role.FEATURE) for name, feature in named]
    for value, role in ((label, Role.LABEL), (weight, Role.WEIGHT)):
        if value is not None:
            feature = _feature(value)
            wanted.append((feature.column, feature, role))
    columns = [ids] if isinstance(ids, str) else ids or []
    return wanted + [(column, Feature(column), Role.ID) for column in columns]


def _feature(value: str | Feature) -> Feature:
    return value if isinstance(value, Feature) else Feature(value)


def _refuse_reuse(wanted: Sequence[tuple[str, Feature, Role]]) -> None:
    """Refuse names that meet twice, also in another case: Spark would not tell them apart."""
    roles: dict[str, set[Role]] = {}
    for _, feature, role in wanted:
        roles.setdefault(feature.column, set()).add(role)
    for column, found in roles.items():
        if len(found) > 1:
            both = " and ".join(role.value for role in Role if role in found)
            msg = f"column {column!r} is used as {both}: it can be one of them only"
            raise SchemaError(msg)
    counts = Counter(name.casefold() for name, _, _ in wanted)
    twice = sorted({name for name, _, _ in wanted if counts[name.casefold()] > 1})
    if twice:
        msg = f"names used twice: {', '.join(map(repr, twice))}; give each input a name of its own"
        raise SchemaError(msg)


def _entry(schema: StructType, name: str, feature: Feature, role: Role) -> SpecEntry:
    column = feature.column
    what = f"{role.value} column {column!r}"
    if column not in schema.names:
        raise SchemaError.missing_column(column, schema.names, role=role.value)
    if schema.names.count(column) > 1:
        msg = f"{what} is in the table {schema.names.count(column)} times: rename or drop one"
        raise SchemaError(msg)
    source = schema[column].dataType
    dtype, derived, is_array = _element(source, feature, what)
    _check_role(dtype, role, what, source, is_array=is_array)
    if role is Role.LABEL and dtype is DType.STRING:
        dtype, derived = DType.INT64, _CLASSES
    return SpecEntry(
        name=name,
        column=column,
        dtype=dtype,
        shape=_shape(feature, what, is_array=is_array),
        role=role,
        source_type=source.simpleString(),
        derived=derived,
    )


def _element(source: DataType, feature: Feature, what: str) -> tuple[DType, str, bool]:
    """Return the element type that is written, how it is made, and whether it is an array's."""
    from pyspark.sql.types import ArrayType

    is_array = isinstance(source, ArrayType)
    element = source.elementType if isinstance(source, ArrayType) else source
    text = element.simpleString()
    what = f"{what} of type {source.simpleString()}"
    family = text.split("(")[0].split("<")[0]
    if family in _HINTS and family != "timestamp_ntz":
        msg = f"{what} cannot be written: {_HINTS[family]}"
        raise SchemaError(msg)
    if isinstance(element, ArrayType):
        msg = (
            f"{what}: nested arrays cannot be written: flatten it and give "
            "Feature(..., shape=(rows, columns))"
        )
        raise SchemaError(msg)
    if feature.cast is not None:
        dtype = _cast(feature, what)
        return dtype, f"cast {text} to {DTYPES[dtype].spark}", is_array
    if text == "double" and feature.dtype in (None, DType.FLOAT32):
        return DType.FLOAT32, _NARROWED, is_array
    found = _BY_SPARK_NAME.get(text)
    if found is None:
        raise SchemaError(_refusal(what, text, family, feature))
    if feature.dtype in (None, found):
        return found, "as is", is_array
    if feature.dtype not in LOSSLESS.get(found, frozenset()):
        asked = DTYPES[feature.dtype].spark if feature.dtype else ""
        msg = (
            f"{what}: dtype {feature.dtype} asked for, but not every {found} fits into it; "
            f"to accept that use Feature({feature.column!r}, cast={asked!r})"
        )
        raise SchemaError(msg)
    return feature.dtype, f"cast {text} to {DTYPES[feature.dtype].spark}", is_array


def _refusal(what: str, text: str, family: str, feature: Feature) -> str:
    if text == "double":
        asked = DTYPES[feature.dtype].spark if feature.dtype else "float"
        return (
            f"{what}: dtype {feature.dtype} loses values; "
            f"to accept that use Feature(..., cast={asked!r})"
        )
    hint = _HINTS.get(family) or LOSSY_TYPES.get(family)
    known = ", ".join([*_BY_SPARK_NAME, "double"])
    return f"{what} cannot be written: {hint or f'cast it to one of {known} (or an array of one)'}"


def _cast(feature: Feature, what: str) -> DType:
    name = (feature.cast or "").strip().lower()
    dtype = _CAST_NAMES.get(name)
    if dtype is None:
        known = sorted(_BY_SPARK_NAME)
        hint = (
            "; TFRecord holds no double, use 'float'"
            if name == "double"
            else did_you_mean(name, known)
        )
        msg = f"{what}: cannot cast to {feature.cast!r}{hint} (one of {', '.join(known)})"
        raise SchemaError(msg)
    if feature.dtype not in (None, dtype):
        msg = (
            f"{what}: cast={feature.cast!r} gives {dtype}, but dtype={feature.dtype.value!r} "
            "was asked for: leave one of them out"
        )
        raise SchemaError(msg)
    return dtype


def _check_role(dtype: DType, role: Role, what: str, source: DataType, *, is_array: bool) -> None:
    got = f"{what}: got {source.simpleString()}"
    if role in (Role.LABEL, Role.WEIGHT):
        if is_array:
            msg = f"{got}, expected one number a row: select one element of it"
            raise SchemaError(msg)
        is_class = role is Role.LABEL and dtype is DType.STRING
        if dtype not in _NUMBERS and not is_class:
            msg = (
                f"{got}, expected a number: cast it, Feature(..., cast='float'), "
                "or name another column"
            )
            raise SchemaError(msg)
    elif role is Role.ID and is_array:
        msg = f"{got}, expected a single value: an array cannot identify a row"
        raise SchemaError(msg)


def _shape(feature: Feature, what: str, *, is_array: bool) -> tuple[int | None, ...]:
    shape = feature.shape
    if shape is None:
        return (None,) if is_array else ()
    if not is_array and shape != ():
        msg = (
            f"{what} is a scalar, its shape is (); got shape={shape}: "
            "leave shape out or give an array column"
        )
        raise SchemaError(msg)
    if is_array and not shape:
        msg = (
            f"{what} is an array: shape () is for scalars; "
            "leave shape out or give at least one dimension"
        )
        raise SchemaError(msg)
    if any(dim is None for dim in shape[1:]) or any(dim is not None and dim < 1 for dim in shape):
        msg = (
            f"{what}: shape={shape}, expected positive numbers; "
            "only the first dimension may be None"
        )
        raise SchemaError(msg)
    return shape


def _written_type(entry: SpecEntry) -> str:
    return f"array<{entry.info.spark}>" if entry.is_array else entry.info.spark


def quoted(column: str) -> str:
    """Return a column's name as SQL must be told it, whatever characters it holds."""
    return "`" + column.replace("`", "``") + "`"

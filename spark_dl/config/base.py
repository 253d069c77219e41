"""What all sections of the YAML share: frozen, keyword-only, unknown keys are errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_args

import numpy as np
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "EXPONENT",
    "Flag",
    "Params",
    "PositiveInt",
    "PositiveSeconds",
    "Section",
    "Text",
    "build",
]

# Strict, because YAML has types: `epochs: "5"` and `epochs: yes` are mistakes, not fives and ones.
Flag = Annotated[bool, Field(strict=True)]
PositiveInt = Annotated[int, Field(strict=True, gt=0)]
PositiveSeconds = Annotated[float, Field(strict=True, gt=0)]
Text = Annotated[str, Field(strict=True, min_length=1)]


#: ``1e-3`` is a number to people and to YAML 1.2, but a text to PyYAML: arguments of
#: ``add_implicit_resolver``, for readers and writers alike.
EXPONENT: Final = (
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _as_yaml(params: dict[str, Any]) -> dict[str, Any]:
    """Refuse what YAML cannot hold, by name."""
    plain = {name: _plain(value) for name, value in params.items()}
    for name, value in plain.items():
        try:
            yaml.safe_dump(value)
        except yaml.YAMLError:
            msg = (
                f"{name} is or holds a value that YAML cannot (got {type(value).__name__}), but "
                "job.yaml keeps the params: give numbers, texts, booleans, dates, null, lists or "
                "mappings"
            )
            raise ValueError(msg) from None
    return plain


def _plain(value: Any) -> Any:  # noqa: ANN401 (params hold anything)
    """Turn NumPy's scalars into Python's, also inside lists and mappings."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


Params = Annotated[dict[str, Any], AfterValidator(_as_yaml)]


class Section(BaseModel):
    """Base of every section: values are checked once, at construction, and stay as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


def build(section: type[S], values: Mapping[str, Any], *, where: str) -> S:
    """Make a section from plain values.

    Args:
        section: the section's class.
        values: its keys and values, as YAML gives them.
        where: the file that they come from, for errors.

    Raises:
        ConfigError: values are wrong or unknown; the message lists all of them, each with its path.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(section, dict(item)) for item in error.errors(include_url=False)]
        raise ConfigError(f"{where}: " + "\n".join(problems)) from None


def _problem(section: type[Section], item: dict[str, Any]) -> str:
    """Say one of pydantic's errors in our words."""
    loc: tuple[Any, ...] = item["loc"]
    path = ".".join(str(part) for part in loc)
    if item["type"] == "extra_forbidden":
        owner = _section_at(section, loc[:-1])
        above = ".".join(str(part) for part in loc[:-1]) or "top level"
        return str(ConfigError.unknown_key(str(loc[-1]), where=above, known=owner.model_fields))
    if item["type"] == "missing":
        return f"{path}: missing, and it has no default"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{path}: {message}" if path else message
    if item["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        message = "expected keys and values"
    return f"{path}: {message[:1].lower()}{message[1:]}, got {item['input']!r}"


def _section_at(section: type[Section], loc: Sequence[Any]) -> type[Section]:
    """Find the section's class that a path of keys leads to."""
    for part in loc:
        field = section.model_fields.get(str(part))
        # a part without a field is the key of a mapping whose values are sections
        if field is not None:
            section = _section_in(field.annotation) or section
    return section


def _section_in(annotation: object) -> type[Section] | None:
    """Find the section's class in an annotation such as ``dict[str, FeatureConfig] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _section_in(arg))), None)

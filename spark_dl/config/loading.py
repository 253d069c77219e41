"""YAML and ``--set key=value`` → `JobConfig`, and its JSON schema for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from spark_dl.config.base import EXPONENT, build
from spark_dl.config.job import JobConfig
from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["json_schema", "load_config"]


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: ``1e-3`` is a number, and a key given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (PyYAML's signature)
        """Build a mapping, refusing keys that are there twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                context = f"the key {key!r} is there twice"
                raise yaml.MarkedYAMLError(problem=context, problem_mark=key_node.start_mark)
            seen.add(key)
        built: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return built


_Loader.add_implicit_resolver(*EXPONENT)


def load_config(path: str | None, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a job's config.

    Args:
        path: a YAML file; `None` starts from nothing.
        overrides: texts ``a.b=value``, later ones win; the value is read as YAML.

    Raises:
        ConfigError: the file is missing or no YAML, or values are wrong or unknown.
    """
    values = _read(path) if path is not None else {}
    for override in overrides:
        _apply(values, override)
    return build(JobConfig, values, where=path or "settings")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the YAML, for editors that complete and check it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **JobConfig.model_json_schema(),
    }


def _parse(text: str) -> Any:  # noqa: ANN401 (YAML holds anything)
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            values = _parse(file.read())
    except OSError as error:
        msg = f"cannot read the config {path}: {error.strerror}"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is no YAML: {error}"
        raise ConfigError(msg) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        msg = f"{path}: expected keys and values, got {type(values).__name__}"
        raise ConfigError(msg)
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``a.b=value`` in nested mappings."""
    dotted, equals, text = override.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    if not equals or not all(keys):
        msg = f"--set {override}: expected key=value, such as training.epochs=5"
        raise ConfigError(msg)
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        msg = f"--set {override}: the value is no YAML: {error}"
        raise ConfigError(msg) from error
    here: Any = values
    for depth, key in enumerate(keys[:-1], start=1):
        if here.get(key) is None:
            here[key] = {}
        here = here[key]
        if not isinstance(here, Mapping):
            msg = f"--set {override}: {'.'.join(keys[:depth])} is {here!r}, it has no keys to set"
            raise ConfigError(msg)
    here[keys[-1]] = value

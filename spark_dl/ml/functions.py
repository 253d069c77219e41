"""Functions as params: given as themselves or by name, saved by name only."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any, Final

from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["function_name", "to_function"]

_NAME: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def to_function(value: Any) -> Callable[..., Any] | str:  # noqa: ANN401 - converts what users give
    """Convert a param's value, as `TypeConverters` do it.

    Args:
        value: a function or ``"package.module:function"``.

    Raises:
        TypeError: it is neither.
    """
    if callable(value) or (isinstance(value, str) and _NAME.fullmatch(value)):
        return value  # type: ignore[no-any-return]  # just checked
    msg = f"expected a function or 'package.module:function', got {value!r}"
    raise TypeError(msg)


def function_name(function: Callable[..., Any] | str, *, param: str) -> str:
    """Return the name under which a function can be loaded again.

    Functions are never saved as pickled code: loading that would run whatever is in the file.

    Args:
        function: the function, or its name already.
        param: the param that holds it, for the error.

    Raises:
        ConfigError: importing by that name would not give this function.
    """
    if isinstance(function, str):
        return function
    module = getattr(function, "__module__", None)
    qualified = getattr(function, "__qualname__", "")
    name = f"{module}:{qualified}"
    if module == "__main__" or not _NAME.fullmatch(name) or not _gives(name, function):
        msg = (
            f"{param}={function!r} cannot be saved: it cannot be imported by a name, and pickled "
            f"code is not saved; move it to the top level of a module and give {param}="
            '"package.module:function". The fitted model can be saved without it'
        )
        raise ConfigError(msg)
    return name


def _gives(name: str, function: Callable[..., Any]) -> bool:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute, None) is function
    except ImportError:
        return False

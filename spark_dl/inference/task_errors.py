"""The error of ours that a task raised, out of the one that Spark made of it."""

from __future__ import annotations

import re
from typing import Final

from spark_dl import errors
from spark_dl.errors import SparkDLError

__all__ = ["task_error"]

_OURS: Final = re.compile(
    r"^spark_dl\.errors\.(\w+): (.*?)(?=^\s*$|^\s+at |\Z)", re.MULTILINE | re.DOTALL
)


def task_error(error: BaseException) -> SparkDLError | None:
    """Return the error of ours that a task raised, out of the one that Spark made of it.

    Args:
        error: what an action on the result of `predict` raised.

    Returns:
        The error with its message; `None` when the cause is not ours.
    """
    for name, message in _OURS.findall(str(error)):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, SparkDLError):
            return kind(message.strip())
    return None if error.__cause__ is None else task_error(error.__cause__)

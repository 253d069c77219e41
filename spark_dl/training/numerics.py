"""Where the first NaN came from: `training.check_numerics`."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

import tensorflow as tf

from spark_dl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["explained", "origin", "watch_numerics"]

#: How TensorFlow's own message begins, see `tf.debugging.enable_check_numerics`.
_FOUND: Final = re.compile(r'!!! Detected Infinity or NaN in output \d+ of [\w-]+ op "(\w+)"')
_NODE: Final = re.compile(r"node ([\w./-]+)")
_STACK_HEIGHT: Final = 40
_PATH_LENGTH: Final = 120


def watch_numerics() -> None:
    """Have every operation that is traced from now on checked, in this process."""
    tf.debugging.enable_check_numerics(
        stack_height_limit=_STACK_HEIGHT, path_length_limit=_PATH_LENGTH
    )


def origin(message: str) -> str | None:
    """Return which operation of which layer made the first NaN or infinity; pure.

    Args:
        message: of TensorFlow's error.

    Returns:
        a text such as ``operation Log in layer functional/risky``; `None` where the message is of
        another error.
    """
    found = _FOUND.search(message)
    if found is None:
        return None
    nodes = [node for node in _NODE.findall(message) if "CheckNumerics" in node]
    scope = nodes[0].rpartition("/")[0] if nodes else ""
    where = f" in layer {scope}" if scope else ""
    return f"operation {found[1]}{where}"


@contextlib.contextmanager
def explained(*, is_watched: bool) -> Iterator[None]:
    """Turn TensorFlow's error about a NaN into one that says where it came from.

    Args:
        is_watched: whether `watch_numerics` was called.

    Raises:
        DataError: a step made a NaN or an infinity.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        where = origin(str(error)) if is_watched else None
        if where is None:
            raise
        msg = (
            f"the first NaN or infinity came out of {where}: look at what goes into it (rows that "
            "are no numbers, logarithms and divisions without an epsilon), or lower the learning "
            "rate, or clip gradients (optimizer's global_clipnorm)"
        )
        raise DataError(msg) from error

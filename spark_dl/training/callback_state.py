"""What a user's callbacks remember, as arrays, so that a resumed run goes on with it.

Keras gives callbacks no way to save themselves. What they remember lies in their attributes:
`EarlyStopping` counts in ``wait``, keeps ``best`` and ``best_weights``. Attributes that have
changed since training began are saved, as far as they are numbers, texts or arrays and no
arguments of the constructor, which are settings; others (files, models, locks) are the callback's
own affair.
"""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from spark_dl.training.checkpoint import Arrays

__all__ = ["CallbackStates"]

_GROUP: Final = "callback"
_PLAIN: Final = f"{_GROUP}/plain"
_ARRAYS_OF: Final = f"{_GROUP}/arrays"
_NOT_STATE: Final = frozenset({"model", "params", "validation_data"})


class CallbackStates:
    """Saves and restores what callbacks remember.

    Args:
        callbacks: the user's callbacks; those of a resumed run must be of the same classes in the
            same order, else they begin anew.
        saved: what a checkpoint holds of them.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], saved: Arrays | None = None
    ) -> None:
        """Remember the callbacks."""
        self._callbacks = callbacks
        self._saved = saved or {}
        self._first: list[dict[str, str]] = []

    def begin(self) -> None:
        """Restore what is saved; call it once every callback's training has begun.

        What the callbacks are like then is noted: only what changes later is their state.
        """
        self._first = [
            {name: _fingerprint(value) for name, value in _attributes(callback).items()}
            for callback in self._callbacks
        ]
        self._restore(self._saved)

    def snapshot(self) -> Arrays:
        """Return what has changed since `begin`."""
        plain: list[dict[str, Any]] = []
        arrays: Arrays = {}
        for number, callback in enumerate(self._callbacks):
            values: dict[str, Any] = {}
            lists: dict[str, int] = {}
            for name, value in _attributes(callback).items():
                if self._first[number].get(name) == _fingerprint(value):
                    continue
                if _is_plain(value):
                    values[name] = value
                    continue
                parts = value if isinstance(value, list) else [value]
                lists[name] = len(parts) if isinstance(value, list) else -1
                for index, part in enumerate(parts):
                    arrays[f"{_ARRAYS_OF}/{number}/{name}/{index}"] = np.array(part)
            plain.append({"class": _kind(callback), "values": values, "arrays": lists})
        if not plain:
            return {}
        text = json.dumps(plain).encode()
        return {_PLAIN: np.frombuffer(text, np.uint8), **arrays}

    def _restore(self, saved: Arrays) -> None:
        if _PLAIN not in saved:
            return
        records = json.loads(saved[_PLAIN].tobytes())
        if [record["class"] for record in records] != [_kind(cb) for cb in self._callbacks]:
            return
        for number, (callback, record) in enumerate(zip(self._callbacks, records, strict=True)):
            for name, value in record["values"].items():
                setattr(callback, name, value)
            for name, count in record["arrays"].items():
                where = f"{_ARRAYS_OF}/{number}/{name}"
                parts = [saved[f"{where}/{index}"] for index in range(abs(count))]
                setattr(callback, name, parts[0] if count < 0 else parts)


def _kind(callback: keras.callbacks.Callback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def _attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Return the attributes that can be saved."""
    settings = inspect.signature(type(callback).__init__).parameters
    return {
        name: value
        for name, value in vars(callback).items()
        if not name.startswith("_")
        and name not in _NOT_STATE
        and name not in settings
        and (_is_plain(value) or _is_arrays(value))
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, (bool, int, float, str)) or value is None:
        return not isinstance(value, np.generic)  # numpy's float64 is a float: an array to us
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, dict) and all(
        isinstance(key, str) and _is_plain(item) for key, item in value.items()
    )


def _is_arrays(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, np.ndarray) for item in value)
    return isinstance(value, (np.ndarray, np.generic))


def _fingerprint(value: object) -> str:
    if _is_plain(value):
        return repr(value)
    parts: list[Any] = value if isinstance(value, list) else [value]
    arrays = [np.asarray(part) for part in parts]
    return repr([(array.shape, array.dtype, hash(array.tobytes())) for array in arrays])

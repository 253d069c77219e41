"""Executor side: parts of Keras that no worker uses are run when they are first asked for."""

from __future__ import annotations

import sys
import threading
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

__all__ = ["import_on_demand"]

#: Wrappers for scikit-learn and plots by matplotlib, wherever Keras shows them.
_EXTRAS: Final = frozenset({"visualization", "wrappers"})

_lock = threading.RLock()
_waiting: dict[str, Loader] = {}


def import_on_demand() -> None:
    """Have `import keras`, and TensorFlow's, leave its extras for later; call it before them.

    Keras imports scikit-learn (with SciPy) and matplotlib where they are installed, a third of the
    seconds that TensorFlow and Keras need. Each worker process would pay for it.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the extras of Keras."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where an extra lies, with a loader that only notes so."""
        if not fullname.startswith("keras.") or fullname.rpartition(".")[2] not in _EXTRAS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    """Makes modules that are run at the first look into them.

    Args:
        loader: runs them.
    """

    def __init__(self, loader: Loader) -> None:
        """Remember the loader."""
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return an empty module."""
        return _OnDemand(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""
        _waiting[module.__name__] = self._loader


class _OnDemand(ModuleType):
    """A module that is run when it is asked for a name.

    Not the standard library's `LazyLoader`: its modules are run by any look, such as that of
    `inspect.getmodule` at the files of all modules.
    """

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module holds
        """Run the module, once, and return what it has by that name."""
        if not name.startswith("__") or name == "__all__":
            with _lock:
                if loader := _waiting.pop(self.__name__, None):
                    try:
                        loader.exec_module(self)
                    except BaseException:
                        _waiting[self.__name__] = loader
                        raise
            if name in vars(self):
                return vars(self)[name]
        msg = f"module {self.__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

"""How a function travels to the children.

It goes by the package `cloudpickle` (a `pyspark.cloudpickle` blob would import pyspark in the
child). What an executor cannot import goes by value: functions of ``__main__`` and of notebooks
always do, and modules that lie beside the driver's script are registered for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from types import ModuleType
from typing import TYPE_CHECKING, Final

import cloudpickle

from spark_dl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["installed_folders", "pickle_by_value"]

#: What executors have from Spark, wherever it lies here: beside SPARK_HOME, or in a .zip of YARN's.
_OF_SPARK: Final = frozenset({"pyspark", "py4j"})


def installed_folders() -> set[str]:
    """Return where this Python's packages and standard library lie, links followed."""
    return {os.path.realpath(folder) for folder in sysconfig.get_paths().values()}


def _is_installed(path: str, folders: tuple[str, ...]) -> bool:
    if "site-packages" in path:
        return True
    real = os.path.realpath(path)
    return real.startswith(folders) or "site-packages" in real


def _local_modules() -> list[ModuleType]:
    """Return imported modules that executors may lack: the user's own source files."""
    left_out = {"__main__", "__mp_main__", __name__.partition(".")[0], *_OF_SPARK}
    installed = tuple(folder + os.sep for folder in installed_folders())
    found = {}  # one module may have several names
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if (
            path
            and top not in left_out
            and isinstance(module, ModuleType)
            and not _is_installed(path, installed)
        ):
            found[id(module)] = module
    return list(found.values())


@contextlib.contextmanager
def _by_value(modules: list[ModuleType]) -> Iterator[None]:
    before = set(cloudpickle.list_registry_pickle_by_value())
    mine = [module for module in modules if module.__name__ not in before]
    for module in mine:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in mine:
            cloudpickle.unregister_pickle_by_value(module)


def pickle_by_value(value: object) -> bytes:
    """Return `value` pickled so that an executor without the user's source files can load it.

    Args:
        value: a function, or anything that holds functions.

    Raises:
        ConfigError: something in it cannot be pickled; the message names it.
    """
    try:
        with _by_value(_local_modules()):
            blob: bytes = cloudpickle.dumps(value)
    except Exception as error:
        msg = (
            f"cannot send the function to the executors: {type(error).__name__}: {error}; "
            "it must not hold on to sessions, DataFrames, open files or locks: create them inside "
            "it"
        )
        raise ConfigError(msg) from error
    return blob

"""Checksums of folders: what tells one exported model from another."""

from __future__ import annotations

import hashlib
from typing import Final

from spark_dl.errors import StorageError
from spark_dl.storage.filesystem import Storage, join, normalise

__all__ = ["MODEL_FILE", "file_checksum", "folder_checksum"]

#: Says which run made a model; holds the folder's checksum and is therefore left out of it.
MODEL_FILE: Final = "model.json"

_BLOCK_BYTES: Final = 1 << 20


def folder_checksum(path: str) -> str:
    """Return one checksum over the names and contents of all files in a folder and below it.

    Args:
        path: the folder. Its own ``model.json`` is left out, because that is where the checksum is
            kept.

    Returns:
        ``sha256:<hex>``. Neither the order in which a file system lists files nor their times
        change it.

    Raises:
        StorageError: there is no such folder, or it holds no files.
    """
    root = normalise(path)
    storage = Storage(root)
    names = [name for name in storage.files(root) if name != MODEL_FILE]
    if not names:
        msg = f"cannot take the checksum of {root}: there is no such folder, or it is empty"
        raise StorageError(msg)
    total = hashlib.sha256()
    for name in names:
        # lengths of fixed size keep ("ab", "c") and ("a", "bc") apart
        encoded = name.encode()
        total.update(len(encoded).to_bytes(8, "little") + encoded)
        total.update(_digest(storage, join(root, name)))
    return f"sha256:{total.hexdigest()}"


def file_checksum(path: str) -> str:
    """Return the checksum of one file's content, ``sha256:<hex>``.

    Raises:
        StorageError: there is no such file.
    """
    root = normalise(path)
    return f"sha256:{_digest(Storage(root), root).hex()}"


def _digest(storage: Storage, path: str) -> bytes:
    digest = hashlib.sha256()
    with storage.open(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.digest()

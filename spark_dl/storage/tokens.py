"""Delegation tokens that came after this process began, as a file for the JVM beside it.

Hadoop reads the file that HADOOP_TOKEN_FILE_LOCATION names when a JVM starts, and never again, and
Spark hands renewed tokens to its own JVMs only. What is told of new ones writes them to a file, and
`spark_dl.storage.bridge` has its JVM take them from there whenever the file has changed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid

from spark_dl.config.environment import local_folders, name_token_file

__all__ = ["TokenFile", "keep_tokens"]


class TokenFile:
    """A file of tokens that nobody else can read, in a folder of its own, replaced as a whole.

    It lies below the folders that Spark or YARN remove with the executor.
    """

    def __init__(self) -> None:
        """Choose where it will be; nothing is there before there are tokens."""
        places = (folder for folder in local_folders() if os.access(folder, os.W_OK))
        name = f"spark-dl-tokens-{uuid.uuid4().hex}"
        self._folder = os.path.join(next(places, tempfile.gettempdir()), name)
        self.path = os.path.join(self._folder, "tokens")

    def replace(self, tokens: bytes) -> None:
        """Put tokens in the place of those before.

        Args:
            tokens: as Hadoop's ``Credentials.writeTokenStorageToStream`` writes them.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        fresh = f"{self.path}.new"
        with open(fresh, "wb", opener=_open_private) as file:
            file.write(tokens)
        os.replace(fresh, self.path)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


_own: list[TokenFile] = []


def keep_tokens(tokens: bytes) -> None:
    """Let this process's own JVM use tokens too; the file goes with the process."""
    if not _own:
        _own.append(TokenFile())
        atexit.register(_own[0].close)
        name_token_file(_own[0].path)
    _own[0].replace(tokens)

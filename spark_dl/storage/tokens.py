"""Delegation tokens that came after this process began, as a file for the JVM beside it.

Hadoop reads the file that HADOOP_TOKEN_FILE_LOCATION names when a JVM starts, and never again, and
Spark hands new tokens to its own JVMs only. What is told of them writes them to a file, and
`spark_dl.storage.bridge` has its JVM take them from there whenever the file has changed. A worker
is told by its driver, and a driver asks Spark (`follow_tokens`).
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import time
import uuid
from typing import TYPE_CHECKING, Final

from spark_dl.config.environment import local_folders, name_token_file

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TokenFile", "TokenWatch", "follow_tokens", "keep_tokens", "look_for_tokens"]

logger = logging.getLogger(__name__)

#: Spark renews tokens after three quarters of their life, which is hours.
_EVERY_S: Final = 10.0


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


class TokenWatch:
    """Looks from time to time whether there are other tokens than before.

    Args:
        read: returns the driver's tokens, `None` where it has none.
    """

    def __init__(self, read: Callable[[], bytes | None]) -> None:
        """Look at once when first asked."""
        self._read = read
        self._next = 0.0
        self._known: bytes | None = None

    def news(self) -> bytes | None:
        """Return tokens that were not here before, for the workers; this process takes them too."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + _EVERY_S
        try:
            found = self._read()
        except Exception:  # what needs no tokens must not end for it
            logger.debug("the delegation tokens cannot be read", exc_info=True)
            return None
        if found is None or found == self._known:
            return None
        self._known = found
        keep_tokens(found)
        return found


_own: list[TokenFile] = []
#: By process: a fork shares its parent's connection to Spark, and must not talk on it.
_followed: dict[int, TokenWatch] = {}


def keep_tokens(tokens: bytes) -> None:
    """Let this process's own JVM use tokens too; the file goes with the process."""
    if not _own:
        _own.append(TokenFile())
        atexit.register(_own[0].close)
        name_token_file(_own[0].path)
    _own[0].replace(tokens)


def follow_tokens(read: Callable[[], bytes | None]) -> None:
    """Have this process's own JVM use the tokens that `read` returns now and later."""
    _followed[os.getpid()] = TokenWatch(read)


def look_for_tokens() -> None:
    """Take new tokens from where they are followed, if they are and some time has passed."""
    if watch := _followed.get(os.getpid()):
        watch.news()

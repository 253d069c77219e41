"""Tokens that Spark renews on the driver, for workers that only the driver can tell of them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from spark_dl.storage.tokens import keep_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TokenWatch"]

logger = logging.getLogger(__name__)

#: Spark renews tokens after three quarters of their life, which is hours.
_EVERY_S: Final = 10.0


class TokenWatch:
    """Looks from time to time whether the driver holds other tokens than before.

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
        except Exception:  # a run that needs no tokens must not end for it
            logger.debug("the delegation tokens cannot be read", exc_info=True)
            return None
        if found is None or found == self._known:
            return None
        self._known = found
        keep_tokens(found)
        return found

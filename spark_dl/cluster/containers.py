"""Containers of YARN: which one a task is in, where its log is, and why it ended."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["container_facts", "explain_end"]

_MEMORY_KILL: Final = re.compile(
    r"exceeding (?:physical|virtual) memory limits\. *(?P<used>[\d.]+ \wB) of (?P<limit>[\d.]+ \wB)"
)


def container_facts(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's container as YARN's variables tell: its id and the URL of its log.

    Args:
        environ: the variables; by default this process's.

    Returns:
        ``container`` and ``log_url``, each only where it is known; empty outside of YARN.
    """
    environ = os.environ if environ is None else environ
    container = environ.get("CONTAINER_ID")
    if container is None:
        return {}
    facts = {"container": container}
    host, port = environ.get("NM_HOST"), environ.get("NM_HTTP_PORT")
    user = environ.get("SPARK_USER") or environ.get("USER")
    if host and port and user:
        # the same that Spark's own pages link to
        facts["log_url"] = f"http://{host}:{port}/node/containerlogs/{container}/{user}"
    return facts


def explain_end(reason: str) -> tuple[str, bool]:
    """Return why an executor ended, in words that say what to do, and whether memory was it.

    Args:
        reason: what Spark keeps as the reason of an executor's removal.
    """
    if (killed := _MEMORY_KILL.search(reason)) is not None:
        message = (
            f"YARN killed the container for its memory: it used {killed['used']}, its limit is "
            f"{killed['limit']} (spark.executor.memory + spark.executor.memoryOverhead); raise "
            "spark.executor.memoryOverhead, which TensorFlow's memory counts against"
        )
        return message, True
    return f"the executor ended: {' '.join(reason.split())}", False

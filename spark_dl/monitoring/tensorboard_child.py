"""The TensorBoard process: serves until its owner is gone.

Run by `spark_dl.monitoring.tensorboard` as ``python -m``; the one line on stdout is a JSON object
with the URL.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from typing import Final

__all__ = ["OWNED", "main"]

#: First argument of a process that ends with its owner; without it the process stays until it is
#: stopped.
OWNED: Final = "--owned"


def main(arguments: list[str]) -> None:
    """Start serving, say where, and wait.

    Args:
        arguments: ``--owned`` or nothing, then TensorBoard's own options.
    """
    # TensorBoard's own switch for "without TensorFlow": up in half a second instead of ten, with 90
    # MB instead of 600
    sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")
    from tensorboard import default, main_lib, program

    owned = arguments[:1] == [OWNED]
    main_lib.global_init()
    # the handler turns SIGTERM into an exit at which TensorBoard removes its temporary files
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = program.TensorBoard(plugins=default.get_plugins())
    server.configure(["tensorboard", *(arguments[1:] if owned else arguments)])
    url = server.launch()
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()
    if owned:
        # end of file: the owner closed the pipe, or is dead, however it died
        sys.stdin.buffer.read()
        return
    # from here on nobody reads the pipes
    with open(os.devnull, "r+b") as nothing:
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            os.dup2(nothing.fileno(), stream.fileno())
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])

"""A line between a host's cable and the others, which a thread carries frame by frame.

It can be slow, and it can lose what goes one way: the connections of its host are then half open.
(The kernel's own emulator, netem, is missing in many kernels.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: From the host to the others, or from them to it.
Way = Literal["out", "in"]
TUN_DEVICE = "/dev/net/tun"
_MOST_BYTES = 65_536
_TUNSETIFF, _TAP_WITHOUT_HEADER = 0x400454CA, 0x1002  # linux/if_tun.h


class Line:
    """What a thread does to the frames.

    Attributes:
        delay_s: how long each frame takes, either way.
        loses: the way on which nothing arrives; `None` for none.
    """

    def __init__(self, host: str, others: str) -> None:
        """Make the line's two ends, network devices of these names."""
        self.delay_s = 0.0
        self.loses: Way | None = None
        self._ways: dict[int, Way] = {_tap(host): "out", _tap(others): "in"}

    @contextlib.contextmanager
    def carrying(self) -> Iterator[None]:
        """Carry frames; the devices are gone at the end."""
        woken, wake = os.pipe()
        thread = threading.Thread(target=self._carry, args=[woken], daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.write(wake, b".")
            thread.join()
            for file in (*self._ways, woken, wake):
                os.close(file)

    def _carry(self, woken: int) -> None:
        """Carry frames until there is something to read from `woken`."""
        host, others = self._ways
        beyond = {host: others, others: host}
        waiting: deque[tuple[float, int, bytes]] = deque()
        while True:
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, end, frame = waiting.popleft()
                os.write(end, frame)
            timeout = waiting[0][0] - now if waiting else None
            ready = select.select([host, others, woken], [], [], timeout)[0]
            if woken in ready:
                return
            for end in ready:
                frame = os.read(end, _MOST_BYTES)
                if self._ways[end] != self.loses:
                    waiting.append((time.monotonic() + self.delay_s, beyond[end], frame))


def _tap(name: str) -> int:
    """Make a network device whose frames are this process's to carry; gone once it is closed."""
    file = os.open(TUN_DEVICE, os.O_RDWR)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_WITHOUT_HEADER))
    return file


@contextlib.contextmanager
def line_between(cable: str, bridge: str, ip: Callable[..., str]) -> Iterator[Line]:
    """Put a line between a cable and the bridge that it was in; connections live on.

    Args:
        cable: the end of the cable that is in the bridge.
        bridge: the bridge.
        ip: runs the program of this name.
    """
    own, host, others = (f"{cable}{letter}" for letter in "bho")
    line = Line(host, others)
    with line.carrying():
        ip("link", "add", own, "type", "bridge")
        try:
            for device in (own, host, others):
                ip("link", "set", device, "up")
            ip("link", "set", others, "master", bridge)
            for device in (host, cable):
                ip("link", "set", device, "master", own)
            yield line
            ip("link", "set", cable, "master", bridge)
        finally:
            ip("link", "del", own)

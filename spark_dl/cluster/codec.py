"""The authenticated codec of the control channel: one for control messages and for reservations.

Nothing that arrives is ever unpickled. A connection starts with a nonce exchange in which both
sides prove that they hold the run's secret; every frame after it carries an HMAC-SHA256 over
direction, sequence number and payload, so that frames can be neither forged, nor replayed, nor
reflected. The format:

    server -> client   magic "SDL1", 32 bytes server nonce
    client -> server   32 bytes client nonce, HMAC(secret, "client" + nonces)
    server -> client   HMAC(secret, "server" + nonces)
    both               u32 length of payload, 32 bytes HMAC, payload = u32 length of header, JSON
    header, data
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import struct
import threading
import time
from typing import Any, Final

from spark_dl.errors import ClusterError

__all__ = [
    "HANDSHAKE_TIMEOUT_S",
    "Channel",
    "ChannelClosedError",
    "ChannelRefusedError",
    "connect",
    "new_secret",
    "seal",
    "unseal",
]

Message = dict[str, Any]

HANDSHAKE_TIMEOUT_S: Final = 5.0
#: Largest payload; a control message is small, event files are sent in pieces.
MAX_PAYLOAD_BYTES: Final = 16 << 20

_MAGIC: Final = b"SDL1"
_NONCE_BYTES: Final = 32
_MAC_BYTES: Final = 32
_LENGTH: Final = struct.Struct(">I")
_SEQUENCE: Final = struct.Struct(">cQ")
_FROM_SERVER: Final = b"S"
_FROM_CLIENT: Final = b"C"


class ChannelClosedError(ClusterError):
    """The other side is gone."""


class ChannelRefusedError(ClusterError):
    """The other side did not prove that it holds the run's secret, or sent something malformed."""


def new_secret() -> bytes:
    """Return a fresh secret for one run."""
    return secrets.token_bytes(32)


def seal(secret: bytes, data: bytes) -> str:
    """Return bytes as text that only who holds the run's secret can read; for use in a message.

    The control channel is authenticated and not secret. The data is XORed with the output of
    SHAKE256 (FIPS 202, an extendable-output function) over the secret and a fresh nonce; that
    nobody has changed it is the channel's care.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return (nonce + _masked(secret, nonce, data)).hex()


def unseal(secret: bytes, text: str) -> bytes:
    """Return what `seal` was given.

    Raises:
        ValueError: it is not a sealed text.
    """
    raw = bytes.fromhex(text)
    return _masked(secret, raw[:_NONCE_BYTES], raw[_NONCE_BYTES:])


def _masked(secret: bytes, nonce: bytes, data: bytes) -> bytes:
    mask = hashlib.shake_256(b"sealed" + secret + nonce).digest(len(data))
    return bytes(byte ^ other for byte, other in zip(data, mask, strict=True))


def _mac(key: bytes, *parts: bytes) -> bytes:
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _receive_exactly(sock: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """Read `size` bytes; `deadline` (monotonic) bounds the whole read, however bytes drip in."""
    buffer = bytearray()
    while len(buffer) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                msg = "handshake timed out"
                raise ChannelRefusedError(msg)
            sock.settimeout(left)
        try:
            chunk = sock.recv(min(size - len(buffer), 1 << 16))
        except TimeoutError as error:
            msg = "handshake timed out"
            raise ChannelRefusedError(msg) from error
        except OSError as error:
            raise ChannelClosedError(str(error)) from error
        if not chunk:
            msg = "connection closed"
            raise ChannelClosedError(msg)
        buffer += chunk
    return bytes(buffer)


class Channel:
    """An authenticated connection; sending is thread-safe, receiving belongs to one thread.

    Use `connect` on the client side and `Channel.accept` on the server side.
    """

    def __init__(self, sock: socket.socket, key: bytes, *, is_server: bool) -> None:
        """Wrap a connected socket whose handshake is over."""
        self._sock = sock
        self._key = key
        self._mine, self._theirs = (
            (_FROM_SERVER, _FROM_CLIENT) if is_server else (_FROM_CLIENT, _FROM_SERVER)
        )
        self._sent = 0
        self._received = 0
        self._lock = threading.Lock()

    @classmethod
    def accept(cls, sock: socket.socket, secret: bytes) -> Channel:
        """Run the server's side of the handshake.

        Raises:
            ChannelRefusedError: the peer did not prove the secret within `HANDSHAKE_TIMEOUT_S`.
            ChannelClosedError: the peer went away.
        """
        deadline = time.monotonic() + HANDSHAKE_TIMEOUT_S
        nonce = secrets.token_bytes(_NONCE_BYTES)
        _send_raw(sock, _MAGIC + nonce)
        answer = _receive_exactly(sock, _NONCE_BYTES + _MAC_BYTES, deadline)
        nonces = nonce + answer[:_NONCE_BYTES]
        if not hmac.compare_digest(answer[_NONCE_BYTES:], _mac(secret, b"client", nonces)):
            msg = "the peer does not hold the run's secret"
            raise ChannelRefusedError(msg)
        _send_raw(sock, _mac(secret, b"server", nonces))
        sock.settimeout(None)
        return cls(sock, _mac(secret, b"frames", nonces), is_server=True)

    @classmethod
    def _greet(cls, sock: socket.socket, secret: bytes, deadline: float) -> Channel:
        greeting = _receive_exactly(sock, len(_MAGIC) + _NONCE_BYTES, deadline)
        if not greeting.startswith(_MAGIC):
            msg = "this is not a spark_dl control port"
            raise ChannelRefusedError(msg)
        mine = secrets.token_bytes(_NONCE_BYTES)
        nonces = greeting[len(_MAGIC) :] + mine
        _send_raw(sock, mine + _mac(secret, b"client", nonces))
        if not hmac.compare_digest(
            _receive_exactly(sock, _MAC_BYTES, deadline), _mac(secret, b"server", nonces)
        ):
            msg = "the server does not hold the run's secret"
            raise ChannelRefusedError(msg)
        sock.settimeout(None)
        return cls(sock, _mac(secret, b"frames", nonces), is_server=False)

    def send(self, header: Message, data: bytes = b"") -> None:
        """Send one message.

        Args:
            header: JSON-able object.
            data: raw bytes that travel behind it.

        Raises:
            ChannelClosedError: the other side is gone.
            ValueError: the message is larger than `MAX_PAYLOAD_BYTES`.
        """
        text = json.dumps(header, separators=(",", ":")).encode()
        payload = _LENGTH.pack(len(text)) + text + data
        if len(payload) > MAX_PAYLOAD_BYTES:
            msg = f"message of {len(payload)} bytes is over the limit of {MAX_PAYLOAD_BYTES}"
            raise ValueError(msg)
        with self._lock:
            mac = _mac(self._key, _SEQUENCE.pack(self._mine, self._sent), payload)
            self._sent += 1
            _send_raw(self._sock, _LENGTH.pack(len(payload)) + mac + payload)

    def receive(self) -> tuple[Message, bytes]:
        """Wait for the next message and return header and data.

        Raises:
            ChannelClosedError: the other side is gone.
            ChannelRefusedError: the frame is malformed, too large or not authentic; the connection
                is of no more use.
        """
        size, mac = self._receive_prefix()
        payload = _receive_exactly(self._sock, size)
        if not hmac.compare_digest(
            mac, _mac(self._key, _SEQUENCE.pack(self._theirs, self._received), payload)
        ):
            msg = "a frame is not authentic"
            raise ChannelRefusedError(msg)
        self._received += 1
        (length,) = _LENGTH.unpack_from(payload)
        header = json.loads(payload[_LENGTH.size : _LENGTH.size + length])
        if not isinstance(header, dict):
            msg = "a frame's header is not an object"
            raise ChannelRefusedError(msg)
        return header, payload[_LENGTH.size + length :]

    def _receive_prefix(self) -> tuple[int, bytes]:
        prefix = _receive_exactly(self._sock, _LENGTH.size + _MAC_BYTES)
        (size,) = _LENGTH.unpack_from(prefix)
        if not _LENGTH.size <= size <= MAX_PAYLOAD_BYTES:
            msg = f"a frame of {size} bytes is outside the limits"
            raise ChannelRefusedError(msg)
        return size, prefix[_LENGTH.size :]

    def request(self, header: Message) -> Message:
        """Send a message and return the answer to it; for connections used for requests only."""
        self.send(header)
        return self.receive()[0]

    def close(self) -> None:
        """Close the connection, also under a thread that is receiving from it."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def connect(address: tuple[str, int], secret: bytes, *, timeout_s: float) -> Channel:
    """Connect to a control server.

    Args:
        address: its host and port.
        secret: the run's secret.
        timeout_s: deadline for connection and handshake together.

    Raises:
        ClusterError: nobody answers there, or not with our secret.
    """
    deadline = time.monotonic() + timeout_s
    try:
        sock = socket.create_connection(address, timeout=timeout_s)
    except OSError as error:
        msg = (
            f"cannot reach the driver's control channel at {address[0]}:{address[1]} from "
            f"{socket.gethostname()}: {error}; "
            "executors must be able to connect to spark.driver.host"
        )
        raise ClusterError(msg) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        return Channel._greet(sock, secret, deadline)  # noqa: SLF001 - the client's half of the handshake
    except ClusterError:
        sock.close()
        raise


def _send_raw(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError as error:
        raise ChannelClosedError(str(error)) from error

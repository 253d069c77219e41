"""The control channel: authentic, ordered, limited; strangers get nowhere."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_dl.cluster import codec
from spark_dl.cluster.codec import (
    Channel,
    ChannelClosedError,
    ChannelRefusedError,
    connect,
    new_secret,
    seal,
    unseal,
)
from spark_dl.cluster.control import ControlServer
from spark_dl.errors import ClusterError

SECRET = b"s" * 32
DEADLINE_S = 30


def pair(client_secret=SECRET, server_secret=SECRET):
    """Return (client, server) after a handshake over a socket pair; either may be the error."""
    left, right = socket.socketpair()
    outcome = {}

    def serve():
        try:
            outcome["server"] = Channel.accept(right, server_secret)
        except ClusterError as error:
            outcome["server"] = error
            right.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client = Channel._greet(left, client_secret, codec.time.monotonic() + DEADLINE_S)
    except ClusterError as error:
        client = error
        left.close()
    thread.join()
    return client, outcome["server"]


@pytest.fixture
def channels():
    client, server = pair()
    yield client, server
    client.close()
    server.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(
    messages=st.lists(st.tuples(st.dictionaries(st.text(), json_values), st.binary()), max_size=4)
)
def test_messages_arrive_as_they_were_sent(messages):
    client, server = pair()
    try:
        for header, data in messages:
            client.send(header, data)
            assert server.receive() == (header, data)
            server.send(header, data)
            assert client.receive() == (header, data)
    finally:
        client.close()
        server.close()


def test_a_client_without_the_secret_is_refused():
    client, server = pair(client_secret=b"x" * 32)
    assert isinstance(server, ChannelRefusedError)
    assert isinstance(client, ClusterError)


def test_a_server_without_the_secret_is_not_trusted():
    # it can only guess: the client must find out before it says anything
    left, right = socket.socketpair()
    right.sendall(b"SDL1" + os.urandom(32) + os.urandom(32))
    with pytest.raises(ChannelRefusedError, match="does not hold"):
        Channel._greet(left, SECRET, codec.time.monotonic() + DEADLINE_S)
    left.close()
    right.close()


@pytest.mark.parametrize("flip", [0, 3, 4, 35, 36, 40, -1])
def test_a_changed_frame_is_refused(channels, flip):
    client, server = channels
    frame = capture(client, {"kind": "hello"}, b"data")
    frame[flip] ^= 1
    client._sock.sendall(bytes(frame))
    client._sock.shutdown(socket.SHUT_WR)
    with pytest.raises((ChannelRefusedError, ChannelClosedError)):
        server.receive()


def test_a_replayed_frame_is_refused(channels):
    client, server = channels
    frame = capture(client, {"kind": "stop"}, b"")
    client._sock.sendall(bytes(frame))
    assert server.receive()[0] == {"kind": "stop"}
    client._sock.sendall(bytes(frame))
    with pytest.raises(ChannelRefusedError, match="authentic"):
        server.receive()


def test_a_reflected_frame_is_refused(channels):
    client, server = channels
    frame = capture(client, {"kind": "stop"}, b"")
    server._sock.sendall(bytes(frame))
    with pytest.raises(ChannelRefusedError, match="authentic"):
        client.receive()


def test_a_huge_length_is_refused_before_anything_is_read(channels):
    client, server = channels
    client._sock.sendall(struct.pack(">I", 2**31) + bytes(32))
    with pytest.raises(ChannelRefusedError, match="outside the limits"):
        server.receive()


def test_too_large_a_message_is_refused_by_the_sender(channels):
    client, _ = channels
    with pytest.raises(ValueError, match="over the limit"):
        client.send({}, bytes(codec.MAX_PAYLOAD_BYTES))


def capture(channel, header, data):
    """Return the frame that a channel would send."""
    left, right = socket.socketpair()
    twin = Channel(left, channel._key, is_server=False)
    twin._sent = channel._sent
    twin.send(header, data)
    left.close()
    frame = bytearray()
    while chunk := right.recv(65536):
        frame += chunk
    right.close()
    return frame


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def server():
    with ControlServer(
        bind="127.0.0.1", host="127.0.0.1", secret=SECRET, world_size=2, ping_s=3600
    ) as running:
        yield running


def test_strangers_are_refused_and_agents_served_meanwhile(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(codec, "HANDSHAKE_TIMEOUT_S", 0.5)
    victim = tmp_path / "pwned"
    pickled = pickle.dumps(Exploit(str(victim)))
    payloads = [
        struct.pack(">I", len(pickled)) + pickled,
        pickled,
        os.urandom(4096),
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
    ]
    strangers = [socket.create_connection(server.address, timeout=DEADLINE_S) for _ in payloads]
    for sock, payload in zip(strangers, payloads, strict=True):
        sock.sendall(payload)
    agent = connect(server.address, SECRET, timeout_s=DEADLINE_S)
    agent.send({"kind": "hello", "rank": 1, "host": "h"})
    assert server.inbox.get(timeout=DEADLINE_S).message["kind"] == "hello"
    for sock in strangers:  # each is closed by the server, the silent one too
        try:
            while sock.recv(4096):
                pass
        except ConnectionResetError:
            pass
        sock.close()
    assert not victim.exists()
    agent.close()
    assert server.inbox.get(timeout=DEADLINE_S).message["kind"] == "gone"
    assert caplog.text.count("refused") == len(payloads)


def test_a_rank_connects_once(server):
    first = connect(server.address, SECRET, timeout_s=DEADLINE_S)
    first.send({"kind": "hello", "rank": 0, "host": "h"})
    assert server.inbox.get(timeout=DEADLINE_S).rank == 0
    second = connect(server.address, SECRET, timeout_s=DEADLINE_S)
    second.send({"kind": "hello", "rank": 0, "host": "h"})
    with pytest.raises(ChannelClosedError):
        second.receive()
    second.close()
    first.close()
    assert server.inbox.get(timeout=DEADLINE_S).message["kind"] == "gone"
    # a task that Spark started again: the attempt that knows the rank as lost goes on
    third = connect(server.address, SECRET, timeout_s=DEADLINE_S)
    third.send({"kind": "hello", "rank": 0, "host": "h"})
    with pytest.raises(ChannelClosedError):
        third.receive()
    third.close()


def test_an_agent_that_comes_late_hears_of_the_stop(server):
    server.broadcast({"kind": "stop", "reason": "over"})
    agent = connect(server.address, SECRET, timeout_s=DEADLINE_S)
    agent.send({"kind": "hello", "rank": 0, "host": "h"})
    assert agent.receive()[0] == {"kind": "stop", "reason": "over"}
    agent.close()


def test_an_agent_that_comes_late_hears_of_the_newest_tokens(server):
    server.broadcast({"kind": "tokens", "sealed": "old"})
    server.broadcast({"kind": "dump"})
    server.broadcast({"kind": "tokens", "sealed": "new"})
    agent = connect(server.address, SECRET, timeout_s=DEADLINE_S)
    agent.send({"kind": "hello", "rank": 0, "host": "h"})
    assert agent.receive()[0] == {"kind": "tokens", "sealed": "new"}
    server.broadcast({"kind": "go"})
    assert agent.receive()[0] == {"kind": "go"}
    agent.close()


@given(data=st.binary(max_size=300), other=st.binary(min_size=32, max_size=32))
def test_what_is_sealed_is_read_with_the_secret_only(data, other):
    text = seal(SECRET, data)
    assert unseal(SECRET, text) == data
    assert text != seal(SECRET, data)
    if len(data) >= 16 and other != SECRET:
        assert unseal(other, text) != data
        assert data.hex() not in text


def test_reservations_are_answered(server):
    client = connect(server.address, SECRET, timeout_s=DEADLINE_S)
    client.send({"kind": "reservation"})
    node = {"executor_id": 1, "host": "h", "port": 5}
    assert client.request({"kind": "register", "node": node}) == {"kind": "ok"}
    answer = client.request({"kind": "query"})
    assert (answer["ready"], answer["missing"]) == (False, [0])
    assert client.request({"kind": "register", "node": {**node, "executor_id": 0}}) == {
        "kind": "ok"
    }
    assert client.request({"kind": "query"})["ready"]
    assert [n["executor_id"] for n in client.request({"kind": "nodes"})["nodes"]] == [0, 1]
    client.close()


def test_nobody_there_is_said_plainly():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ClusterError, match="cannot reach the driver's control channel"):
        connect(address, new_secret(), timeout_s=5)

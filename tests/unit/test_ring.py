"""Sums through a ring of connections: ranks are threads here, the network is real."""

from __future__ import annotations

import contextlib
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from spark_dl.errors import TimeoutExpiredError, WorkerLostError
from spark_dl.training.ring import _ALONE_BYTES, TOKEN_BYTES, Entrance, Ring

DEADLINE_S = 60


@contextlib.contextmanager
def rings(size, *, before_joining=lambda entrances: None):
    token = secrets.token_bytes(TOKEN_BYTES)
    entrances = [Entrance("127.0.0.1") for _ in range(size)]
    before_joining(entrances)
    addresses = [("127.0.0.1", entrance.port) for entrance in entrances]

    def join(rank):
        return Ring.join(rank, addresses, entrances[rank], token, timeout_s=DEADLINE_S)

    with ThreadPoolExecutor(size) as pool:
        joined = list(pool.map(join, range(size)))
        yield joined, pool
        for ring in joined:
            ring.close()


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64"])
def test_sums_are_right_and_the_same_everywhere(size, dtype):
    rng = np.random.default_rng(size)
    with rings(size) as (joined, pool):
        for length in (0, 1, size - 1, 1000, 300_001):  # some ranks' parts are empty at first
            given = [(rng.normal(size=length) * 9).astype(dtype) for _ in range(size)]
            kept = [array.copy() for array in given]
            sums = list(pool.map(lambda ring, array: ring.sum(array), joined, given))
            expected = np.sum([array.astype(np.float64) for array in given], axis=0)
            tolerance = {"float16": 0.05, "float32": 1e-4}.get(dtype, 1e-12)
            np.testing.assert_allclose(sums[0], expected, rtol=tolerance, atol=tolerance)
            for total, array, copy in zip(sums, given, kept, strict=True):
                assert total.dtype == array.dtype
                assert total.tobytes() == sums[0].tobytes()
                assert array.tobytes() == copy.tobytes()


@pytest.mark.parametrize("size", [2, 3])
def test_what_the_kernels_buffers_do_not_hold_goes_through_too(size):
    with rings(size) as (joined, pool):
        for ring in joined:
            ring._onwards.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
            ring._inwards.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        given = np.arange(size * _ALONE_BYTES // 4, dtype=np.float32)
        sums = list(pool.map(lambda ring: ring.sum(given[: given.size // 2]), joined))
        sums += pool.map(lambda ring: ring.sum(given), joined)
    for total in sums:
        np.testing.assert_array_equal(total, size * given[: total.size])


def test_strangers_are_turned_away():
    silent = []

    def intrude(entrances):
        silent.append(socket.create_connection(("127.0.0.1", entrances[1].port)))
        for words in (b"", b"GET / HTTP/1.1\r\n\r\n" * 9, bytes(TOKEN_BYTES) + b"\0\0\0\0"):
            stranger = socket.create_connection(("127.0.0.1", entrances[1].port))
            stranger.sendall(words)
            if words:
                silent.append(stranger)
            else:
                stranger.close()

    with rings(2, before_joining=intrude) as (joined, pool):
        sums = list(pool.map(lambda ring: ring.sum(np.ones(9)), joined))
    assert [total.tolist() for total in sums] == [[2.0] * 9] * 2
    for stranger in silent:
        stranger.close()


def test_a_rank_that_is_gone_is_noticed():
    with rings(3) as (joined, pool):
        waiting = pool.submit(joined[0].sum, np.ones(10**6))
        for connection in (joined[2]._onwards, joined[2]._inwards):
            connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(WorkerLostError, match="rank 2 or rank 1, which this rank sums with"):
            waiting.result(DEADLINE_S)
        assert joined[0].lost is not None


def test_nobody_waits_for_ever_at_the_entrance():
    entrance = Entrance("127.0.0.1")
    with pytest.raises(TimeoutExpiredError, match="rank 4 to join the ring"):
        entrance.admit(bytes(TOKEN_BYTES), 4, timeout_s=0.05)
    entrance.close()

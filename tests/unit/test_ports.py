"""Ports of a range: never two of ours on one, never one that others have."""

from __future__ import annotations

import contextlib
import doctest
import socket

import pytest

from spark_dl import ports
from spark_dl.cluster.control import ControlServer
from spark_dl.cluster.spec import PortHolder
from spark_dl.config import TensorBoardConfig, build
from spark_dl.config.sections import ClusterConfig
from spark_dl.errors import ConfigError, ResourceError
from spark_dl.monitoring import start_tensorboard
from spark_dl.ports import PortRange
from spark_dl.training.ring import Entrance


@pytest.fixture
def span(free_ports):
    return PortRange(*free_ports(3))


def control(span):
    return ControlServer(
        bind="127.0.0.1", host="127.0.0.1", secret=b"s" * 32, world_size=1, ping_s=60, ports=span
    )


def test_workers_control_channel_and_strangers_share_a_range(span):
    with contextlib.ExitStack() as stack:
        stack.enter_context(socket.create_server(("127.0.0.1", span.low)))
        holder = stack.enter_context(PortHolder(ports=span))
        server = stack.enter_context(control(span))
        assert {holder.port, server.address[1]} == {span.low + 1, span.high}
        with pytest.raises(ResourceError, match=f"cluster.ports {span} .* for a worker"):
            PortHolder(ports=span)
    with PortHolder(ports=span) as holder:
        assert holder.port == span.low


def test_a_port_whose_connections_linger_can_be_had_again(span):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(control(span))
        sock = stack.enter_context(socket.create_connection(server.address))
        server.close()  # the side that closes first keeps the connection in TIME_WAIT
        with contextlib.suppress(OSError):
            sock.recv(1)
    with control(PortRange(span.low, span.low)) as again:
        assert again.address[1] == span.low


def holder_port(span):
    with PortHolder(ports=span) as holder:
        return holder.port


def control_port(span):
    with control(span) as server:
        return server.address[1]


def ring_port(span):
    with contextlib.closing(Entrance("127.0.0.1", span)) as entrance:
        return entrance.port


@pytest.mark.parametrize("taken_port", [holder_port, control_port, ring_port])
def test_who_is_faster_between_look_and_bind_keeps_the_port(span, monkeypatch, taken_port):
    is_free, faster = ports._is_free, []
    with contextlib.ExitStack() as stack:

        def look(port):
            free = is_free(port)
            if not faster:
                faster.append(stack.enter_context(socket.create_server(("", port))))
            return free

        monkeypatch.setattr(ports, "_is_free", look)
        assert taken_port(span) == span.low + 1
        assert faster[0].getsockname()[1] == span.low


def test_tensorboard_takes_one_too_and_a_training_goes_on_without(span, tmp_path, caplog):
    config = TensorBoardConfig()
    with control(span) as server, PortHolder(ports=span) as holder:
        board = start_tensorboard(config, tmp_path, ports=span)
        with board:
            taken = {server.address[1], holder.port, int(board.url.split(":")[2].strip("/"))}
            assert taken == set(span)
            assert start_tensorboard(config, tmp_path, ports=span) is None
    assert "widen the range" in caplog.text


@pytest.mark.parametrize("text", ["40000", "40010-40000", "80-90", "40000-70000", "a-b", "1-2-3"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ConfigError, match="such as 40000-40010"):
        build(ClusterConfig, {"ports": text}, where="cluster")


def test_the_range_is_read():
    assert list(ClusterConfig(ports="40000-40002").port_range) == [40000, 40001, 40002]
    assert ClusterConfig().port_range is None
    assert doctest.testmod(ports).failed == 0

"""The mailbox in a folder, and both ends of the hub over it, with real sockets and no Spark."""

from __future__ import annotations

import pytest

from spark_dl.cluster.codec import connect, new_secret
from spark_dl.cluster.hub import Hub, RemoteControl
from spark_dl.cluster.mailbox import Inbox, Outbox
from spark_dl.cluster.plan import LaunchPlan, Timeouts
from spark_dl.errors import ClusterError


def plan(mailbox, secret=b"s" * 32):
    return LaunchPlan(
        job=b"",
        world_size=1,
        control=("", 0),
        mailbox=str(mailbox),
        secret=secret,
        backend="barrier",
        timeouts=Timeouts(stop_s=20),
    )


def test_messages_arrive_once_and_in_order(tmp_path):
    outbox, inbox = Outbox(str(tmp_path / "up")), Inbox(str(tmp_path / "up"))
    assert inbox.take() == []
    outbox.put([{"n": 1}, {"n": 2}])
    outbox.put([{"n": 3}])
    assert [message["n"] for message in inbox.take()] == [1, 2, 3]
    assert inbox.take() == []


def test_a_hub_that_does_not_see_the_clients_folder_says_so(tmp_path):
    with pytest.raises(ClusterError, match="run directory is not shared"):
        Hub(plan(tmp_path / "elsewhere"), "127.0.0.1")


def test_agent_and_client_talk_through_the_hub(tmp_path):
    secret = new_secret()
    client = RemoteControl(str(tmp_path / "box"))
    hub = Hub(plan(tmp_path / "box", secret), "127.0.0.1")
    agent = connect(hub.address, secret, timeout_s=20)
    agent.send({"kind": "hello", "rank": 0, "host": "here", "pid": 1})
    assert client.inbox.get(timeout=20).message["kind"] == "hello"
    client.broadcast({"kind": "stop", "reason": "enough"})
    assert agent.receive()[0] == {"kind": "stop", "reason": "enough"}
    agent.close()
    hub.close()
    client.fetch()
    assert client.inbox.get(timeout=20).message == {"kind": "gone"}
    client.close()
    assert not (tmp_path / "box").exists()

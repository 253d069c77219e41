"""Decisions of the cluster without a cluster: states, failures, slots, addresses, backends."""

from __future__ import annotations

import dataclasses
import itertools
import json
import socket

import pytest

from spark_dl._jvm import RunningJob
from spark_dl.cluster.containers import container_facts
from spark_dl.cluster.failure import (
    CAUSE_PATIENCE_S,
    CAUSES_MERGE_S,
    CONTAINER_PATIENCE_S,
    Verdict,
    decide,
    last_step,
)
from spark_dl.cluster.memory import check_overhead
from spark_dl.cluster.oom import oom_kills
from spark_dl.cluster.profile import WorkerResources
from spark_dl.cluster.resources import (
    SlotFacts,
    choose_num_workers,
    expected_slots,
    refuse_shared_gpus,
    refuse_unsupported,
    wait_for_room,
    wait_for_slots,
)
from spark_dl.cluster.select import ExecutorFacts, choose_backend, select_backend
from spark_dl.cluster.spec import ClusterSpec, PortHolder, source_address
from spark_dl.cluster.status import TRANSITIONS, RankPhase, RunState, WorkerStatus
from spark_dl.errors import (
    CancelledError,
    ClusterError,
    ConfigError,
    InternalError,
    RankFailure,
    ResourceError,
    RetryableTrainingFailedError,
    TrainingFailedError,
)

USER_ERROR = RankFailure(rank=1, host="h1", error="ValueError", message="boom")
PEER_GONE = RankFailure(rank=0, host="h0", error="UnavailableError", message="peer", retryable=True)


def status(rank, phase, failure=None, **more):
    return WorkerStatus(rank=rank, phase=phase, host=f"h{rank}", failure=failure, **more)


def test_states_end_only_in_terminal_ones():
    for state, following in TRANSITIONS.items():
        assert state.is_terminal == (not following)
    assert RunState.STARTING.to(RunState.RUNNING) is RunState.RUNNING
    with pytest.raises(InternalError, match="cannot go from succeeded to running"):
        RunState.SUCCEEDED.to(RunState.RUNNING)


@pytest.mark.parametrize(
    "phase", [p for p in RankPhase if p not in (RankPhase.DONE, RankPhase.FAILED, RankPhase.LOST)]
)
def test_one_rank_done_is_not_all(phase):
    decision = decide([status(0, RankPhase.DONE), status(1, phase)], trouble_s=0)
    assert decision.verdict is Verdict.WAIT


def test_all_done_releases():
    assert (
        decide([status(r, RankPhase.DONE) for r in range(3)], trouble_s=0).verdict
        is Verdict.RELEASE
    )


def test_a_user_error_is_raised_once_others_had_a_moment_to_join():
    ranks = [status(0, RankPhase.RUNNING), status(1, RankPhase.FAILED, USER_ERROR)]
    assert decide(ranks, trouble_s=0).verdict is Verdict.WAIT
    decision = decide(ranks, trouble_s=CAUSES_MERGE_S)
    assert isinstance(decision.error, TrainingFailedError)
    assert not decision.error.retryable
    assert str(decision.error).startswith("[rank 1 on h1] ValueError: boom")
    ranks[0] = status(0, RankPhase.FAILED, dataclasses.replace(USER_ERROR, rank=0, host="h0"))
    merged = decide(ranks, trouble_s=0).error
    assert str(merged) == "[rank 0, 1 on h0, h1] ValueError: boom"


def test_a_consequence_waits_for_its_cause():
    ranks = [
        status(0, RankPhase.FAILED, PEER_GONE, is_consequence=True),
        status(1, RankPhase.RUNNING),
    ]
    assert decide(ranks, trouble_s=CAUSE_PATIENCE_S / 2).verdict is Verdict.WAIT
    ranks[1] = status(1, RankPhase.FAILED, USER_ERROR)
    decision = decide(ranks, trouble_s=CAUSE_PATIENCE_S / 2)
    assert [f.rank for f in decision.error.failures] == [1]


def test_a_consequence_without_a_cause_is_raised_in_the_end():
    ranks = [
        status(0, RankPhase.FAILED, PEER_GONE, is_consequence=True),
        status(1, RankPhase.RUNNING),
    ]
    decision = decide(ranks, trouble_s=CAUSE_PATIENCE_S)
    assert [f.rank for f in decision.error.failures] == [0]
    assert decision.error.retryable


def test_the_step_of_a_try_is_that_of_the_rank_that_failed():
    new, slow, fast = (status(0, RankPhase.RUNNING, step=step) for step in (None, 4, 6))
    assert last_step([new, new]) is None
    assert last_step([slow, fast]) == 6
    assert last_step([status(1, RankPhase.FAILED, USER_ERROR, step=5), fast]) == 5
    peer = status(1, RankPhase.FAILED, PEER_GONE, is_consequence=True, step=4)
    assert last_step([peer, fast]) == 6
    # a loop of the user's own need not report on every rank
    assert last_step([status(1, RankPhase.FAILED, USER_ERROR), fast]) == 6


def test_the_others_stop_at_once_when_a_rank_is_lost():
    """What they would do until the cause is known is lost anyway."""
    ranks = [status(0, RankPhase.RUNNING), status(1, RankPhase.LOST)]
    assert decide(ranks, trouble_s=0).verdict is Verdict.HALT
    assert decide(ranks, trouble_s=CAUSE_PATIENCE_S).verdict is Verdict.RAISE


def test_a_lost_rank_is_worth_a_retry():
    ranks = [status(0, RankPhase.FAILED, PEER_GONE, is_consequence=True), status(1, RankPhase.LOST)]
    error = decide(ranks, trouble_s=CAUSE_PATIENCE_S).error
    assert isinstance(error, RetryableTrainingFailedError)
    assert error.exit_code == 75
    assert "[rank 1 on h1] WorkerLost" in str(error)


KILLED = (
    "Container from a bad node: container_1 on host: h1. Exit status: 143. Diagnostics: Container "
    "killed by YARN for exceeding physical memory limits. 956.6 MB of 896 MB physical memory used. "
    "Consider boosting spark.executor.memoryOverhead."
)


def test_a_container_killed_for_its_memory_says_so_first():
    lost = status(1, RankPhase.LOST)
    lost.container, lost.log_url = "container_1", "http://h1:8042/node/containerlogs/container_1/me"
    ranks = [status(0, RankPhase.FAILED, PEER_GONE, is_consequence=True), lost]
    # Spark learns from YARN some seconds later why a container ended
    assert decide(ranks, trouble_s=CAUSE_PATIENCE_S).verdict is Verdict.HALT
    unexplained = decide(ranks, trouble_s=CONTAINER_PATIENCE_S).error
    assert unexplained.retryable
    lost.end = KILLED
    error = decide(ranks, trouble_s=CAUSE_PATIENCE_S).error
    first, *others = str(error).splitlines()
    assert "YARN killed the container for its memory" in first
    assert "its limit is 896 MB" in first
    assert "raise spark.executor.memoryOverhead" in first
    assert others == [f"log of rank 1's container: {lost.log_url}"]
    assert error.failures[0].is_of_memory


def test_a_container_that_ended_otherwise_is_worth_a_retry():
    lost = status(0, RankPhase.LOST)
    lost.container, lost.end = "container_1", "Container released\non a *lost* node"
    error = decide([lost], trouble_s=CAUSE_PATIENCE_S).error
    assert "the executor ended: Container released on a *lost* node" in str(error)
    assert error.retryable


def test_yarns_variables_tell_container_and_log():
    environ = {"CONTAINER_ID": "c1", "NM_HOST": "h1", "NM_HTTP_PORT": "8042", "USER": "me"}
    url = "http://h1:8042/node/containerlogs/c1/me"
    assert container_facts(environ) == {"container": "c1", "log_url": url}
    assert container_facts({"CONTAINER_ID": "c1"}) == {"container": "c1"}
    assert container_facts({"NM_HOST": "h1"}) == {}


@pytest.mark.parametrize("master", ["yarn", "k8s://https://h:6443"])
def test_an_overhead_without_room_for_tensorflow_is_refused(master):
    conf = {"spark.master": master, "spark.executor.memory": "1g", "spark.executor.cores": "2"}
    with pytest.raises(ConfigError, match=r"384 MiB.*2 workers.*memoryOverhead=2\d\d\dm"):
        check_overhead(conf, 4)
    check_overhead({**conf, "spark.executor.memoryOverhead": "2g"}, 4)
    check_overhead({**conf, "spark.executor.memoryOverhead": "1g"}, 1)
    check_overhead({**conf, "spark.master": "local[2]"}, 4)


def test_a_tight_overhead_is_warned_of(caplog):
    check_overhead({"spark.master": "yarn", "spark.executor.memoryOverhead": "600m"}, 1)
    assert "memoryOverhead=1408m" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("conf", "slots"),
    [
        ({"spark.master": "local[3]"}, 3),
        ({"spark.master": "local[3, 2]", "spark.task.cpus": "2"}, 1),
        ({"spark.master": "local-cluster[2,1,1024]"}, 2),
        ({"spark.master": "local-cluster[2, 4, 1024]", "spark.task.cpus": "3"}, 2),
        ({"spark.master": "yarn", "spark.executor.instances": "3"}, 3),
        ({"spark.master": "yarn", "spark.executor.instances": "3", "spark.executor.cores": "2"}, 6),
        ({"spark.master": "spark://h:7077"}, None),
        ({"spark.master": "local[*]"}, None),
    ],
)
def test_expected_slots(conf, slots):
    assert expected_slots(conf) == slots


def test_workers_that_take_more_cores_have_fewer_slots_and_more_memory():
    conf = {
        "spark.master": "yarn",
        "spark.executor.instances": "3",
        "spark.executor.cores": "5",
        "spark.executor.memoryOverhead": "900m",
    }
    assert [expected_slots(conf, cpus) for cpus in (None, 2, 5)] == [15, 6, 3]
    check_overhead(conf, 3, WorkerResources(cores=5))
    with pytest.raises(ConfigError, match="but 2 workers in it take"):
        check_overhead(conf, 3, WorkerResources(cores=2))


def test_more_workers_than_slots_are_refused():
    with pytest.raises(
        ResourceError, match="4 workers do not fit: Spark has 3 task slots, 1 of them busy"
    ):
        choose_num_workers(4, SlotFacts(total=3, busy=1))
    assert choose_num_workers(2, SlotFacts(total=3, busy=1)) == 2
    assert choose_num_workers(None, SlotFacts(total=3, busy=1)) == 2
    with pytest.raises(ResourceError, match="no free task slot"):
        choose_num_workers(None, SlotFacts(total=1, busy=1))
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        choose_num_workers(0, SlotFacts(total=1))


def test_busy_slots_are_told_with_their_jobs():
    jobs = tuple(RunningJob(id=n, tasks=n, description=f"load {'x' * 80} {n}") for n in range(1, 6))
    assert str(SlotFacts(total=9)) == "9 task slots, 0 of them busy"
    assert str(SlotFacts(total=9, busy=3, jobs=(RunningJob(7, 3, "etl"),))) == (
        "9 task slots, 3 of them busy: 3 by job 7 (etl)"
    )
    told = str(SlotFacts(total=20, busy=15, jobs=jobs))
    assert told.endswith("3 by job 3 (load [...]), others by 2 more")


def test_nobody_waits_for_an_application_that_is_over(monkeypatch):
    resources = "spark_dl.cluster.resources"
    monkeypatch.setattr(f"{resources}.worker_profile", lambda spark, asked: None)
    monkeypatch.setattr(f"{resources}._jvm.is_connect", lambda spark: False)
    monkeypatch.setattr(f"{resources}._jvm.seconds_until_missed", lambda spark: 600)
    monkeypatch.setattr(f"{resources}._jvm.is_stopped", lambda spark: True)
    with pytest.raises(CancelledError, match="the Spark application was stopped"):
        wait_for_room(None, 2, timeout_s=600, busy_timeout_s=600, check_stop=lambda: None)


def test_a_request_that_can_never_be_met_counts_the_slots_that_are_to_come(monkeypatch):
    resources = "spark_dl.cluster.resources"
    conf = {"spark.master": "local-cluster[2,1,1024]"}
    monkeypatch.setattr(f"{resources}.cluster_conf", lambda spark: conf)
    monkeypatch.setattr(f"{resources}.worker_profile", lambda spark, asked: None)
    monkeypatch.setattr(f"{resources}._jvm.is_connect", lambda spark: False)
    monkeypatch.setattr(f"{resources}._jvm.is_stopped", lambda spark: False)
    monkeypatch.setattr(f"{resources}._jvm.task_slots", lambda spark, profile: 0)
    monkeypatch.setattr(f"{resources}._jvm.running_tasks", lambda spark: 0)
    facts = wait_for_slots(None, 3, timeout_s=600, busy_timeout_s=600)
    with pytest.raises(ResourceError, match="3 workers do not fit: Spark has 2 task slots, 0 of"):
        choose_num_workers(3, facts)


@pytest.fixture
def room(monkeypatch):
    """Wait for room for 2 workers in a Spark whose slots are (total, busy), one pair a look."""
    jvm = "spark_dl.cluster.resources._jvm"

    def wait(*looks, busy_s=0.1, check_stop=lambda: None):
        pairs = itertools.chain(looks, itertools.repeat(looks[-1]))
        now = {}

        def total(spark, profile):
            now["total"], now["busy"] = next(pairs)
            return now["total"]

        monkeypatch.setattr(f"{jvm}.is_connect", lambda spark: False)
        monkeypatch.setattr(f"{jvm}.seconds_until_missed", lambda spark: 0.5)
        monkeypatch.setattr(f"{jvm}.is_stopped", lambda spark: False)
        monkeypatch.setattr(f"{jvm}.task_slots", total)
        monkeypatch.setattr(f"{jvm}.running_tasks", lambda spark: now["busy"])
        monkeypatch.setattr(f"{jvm}.running_jobs", lambda spark: ())
        monkeypatch.setattr("spark_dl.cluster.resources.worker_profile", lambda spark, asked: None)
        wait_for_room(None, 2, timeout_s=0.25, busy_timeout_s=busy_s, check_stop=check_stop)

    return wait


def test_after_a_loss_spark_gets_time_to_miss_it_and_to_replace_it(room):
    # the lost one still counts, as busy; then it is missed; then there is another
    room((2, 1), (2, 1), (1, 0), (1, 0), (2, 0))
    with pytest.raises(
        ResourceError,
        match=r"0\.75 s after the loss Spark has no room for 2 workers: 1 task slots, 0 of",
    ):
        room((2, 1), (1, 0))
    with pytest.raises(ResourceError, match=r"1\.25 s after the loss .*2 task slots, 1 of"):
        room((2, 1), busy_s=1.0)  # it may be another job that has the slot


def test_nobody_waits_for_room_when_the_run_is_stopped(room):
    def stopped():
        message = "enough"
        raise CancelledError(message)

    with pytest.raises(CancelledError, match="enough"):
        room((2, 1), check_stop=stopped)


@pytest.mark.parametrize(
    ("conf", "names"),
    [
        ({"spark.dynamicAllocation.enabled": "true"}, "spark.dynamicAllocation.enabled=false"),
        ({"spark.executor.pyspark.memory": "2g"}, "spark.executor.memoryOverhead"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(conf, names):
    with pytest.raises(ConfigError, match=names):
        refuse_unsupported(conf)


def test_workers_that_may_share_a_gpu_are_refused():
    conf = {"spark.task.resource.gpu.amount": "0.25"}
    with pytest.raises(ConfigError, match=r"set cluster\.gpus_per_worker=1"):
        refuse_shared_gpus(conf, 2)
    refuse_shared_gpus(conf, 1)
    refuse_shared_gpus(conf, 2, WorkerResources(gpus=1))
    refuse_shared_gpus({"spark.task.resource.gpu.amount": "2"}, 2)
    refuse_shared_gpus({}, 2)


def facts(**versions):
    return ExecutorFacts(
        python="3.11.7", versions={name.replace("_", "-"): v for name, v in versions.items()}
    )


def test_on_connect_auto_takes_barrier_and_tensorflowonspark_is_refused():
    full = facts(tensorflow="2.21.0", tensorflowonspark="2.2.5", setuptools="81.0.0")
    name, reason = choose_backend("auto", full, on_connect=True)
    assert name == "barrier"
    assert "Spark Connect" in reason
    with pytest.raises(ConfigError, match=r"Spark Connect.*use barrier or auto"):
        choose_backend("tensorflowonspark", full, on_connect=True)


def test_the_backend_is_chosen_by_what_executors_have():
    full = facts(tensorflow="2.21.0", tensorflowonspark="2.2.5", setuptools="81.0.0")
    assert choose_backend("auto", full)[0] == "tensorflowonspark"
    assert choose_backend("barrier", full)[0] == "barrier"
    without = facts(tensorflow="2.21.0", setuptools="81.0.0")
    assert choose_backend("auto", without) == (
        "barrier",
        "tensorflowonspark is not installed on the executors",
    )
    new = facts(tensorflow="2.21.0", tensorflowonspark="2.2.5", setuptools="82.0.1")
    assert choose_backend("auto", new)[0] == "barrier"
    with pytest.raises(ResourceError, match=r"setuptools < 82 on the executors, found 82\.0\.1"):
        choose_backend("tensorflowonspark", new)
    with pytest.raises(ResourceError, match="has no tensorflow"):
        choose_backend("barrier", facts(setuptools="81.0.0"))
    with pytest.raises(ConfigError, match="expected auto, tensorflowonspark or barrier"):
        choose_backend("horovod", full)


@pytest.mark.parametrize("lacking_first", [True, False])
def test_an_executor_without_the_package_decides_for_all(monkeypatch, lacking_first):
    full = facts(tensorflow="2.21.0", tensorflowonspark="2.2.5", setuptools="81.0.0")
    found = [facts(tensorflow="2.21.0"), full]
    asked = []
    monkeypatch.setattr(
        "spark_dl.cluster.select.probe_executors",
        lambda _, tasks: asked.append(tasks) or (found if lacking_first else found[::-1]),
    )
    session = object()
    assert select_backend(session, "auto", num_workers=3).name == "barrier"
    found[0] = full
    assert select_backend(session, None, num_workers=3).name == "tensorflowonspark"
    found[0] = facts(setuptools="81.0.0")
    with pytest.raises(ResourceError, match="has no tensorflow"):
        select_backend(session, "barrier", num_workers=3)
    assert asked == [3, 3, 3]


def test_tf_config_names_chief_and_workers():
    spec = ClusterSpec(("a:1", "b:2", "a:3"))
    assert json.loads(spec.tf_config(0)) == {
        "cluster": {"chief": ["a:1"], "worker": ["b:2", "a:3"]},
        "task": {"type": "chief", "index": 0},
    }
    assert json.loads(spec.tf_config(2))["task"] == {"type": "worker", "index": 1}
    assert [spec.local_rank(rank) for rank in range(3)] == [0, 0, 1]
    assert "worker" not in json.loads(ClusterSpec(("a:1",)).tf_config(0))["cluster"]
    assert ClusterSpec.from_jobs({"chief": ["a:1"], "worker": ["b:2", "a:3"]}) == spec


@pytest.mark.parametrize(
    ("around", "direct"),
    [
        ({}, "a,b"),
        ({"no_proxy": ".corp,10.0.0.0/8"}, ".corp,10.0.0.0/8,a,b"),
        ({"no_proxy": ".corp", "no_grpc_proxy": ".other"}, ".other,a,b"),
    ],
)
def test_ranks_reach_each_other_by_no_proxy(around, direct):
    environ = ClusterSpec(("a:1", "b:2", "a:3")).environ(1, around)
    assert environ["no_grpc_proxy"] == direct
    assert json.loads(environ["TF_CONFIG"])["task"] == {"type": "worker", "index": 0}


def test_a_held_port_is_taken_for_all_but_its_heir():
    with PortHolder() as holder:
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("", holder.port), reuse_port=False)
        with (
            socket.create_server(("", holder.port), reuse_port=True) as heir,
            socket.create_connection(("127.0.0.1", holder.port), timeout=30) as client,
        ):
            peer, _ = heir.accept()  # the holder, which does not listen, gets nothing
            peer.close()
            assert client.recv(1) == b""


def test_the_published_address_is_the_one_towards_the_driver():
    assert source_address(("127.0.0.1", 1)) == "127.0.0.1"


def test_a_loopback_address_among_others_is_refused_by_rank():
    with pytest.raises(ClusterError, match=r"rank 1 published the loopback address 127\.0\.0\.1:2"):
        ClusterSpec(("10.0.0.1:1", "127.0.0.1:2"))
    assert ClusterSpec(("127.0.0.1:1", "[::1]:2")).local_rank(1) == 0


def test_beside_a_driver_with_a_loopback_name_the_networks_address_is_published(
    monkeypatch,
):
    sources = {"driver.example": "127.0.0.1", "192.0.2.1": "10.0.0.7"}
    monkeypatch.setattr("spark_dl.cluster.spec._source", lambda target: sources[target[0]])
    assert source_address(("driver.example", 1)) == "10.0.0.7"


@pytest.mark.parametrize(
    ("groups", "events", "text"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.events", "low 0\noom 4\noom_kill 3\n"),
        (
            "5:cpu:/x\n4:memory,hugetlb:/y\n",
            "sys/fs/cgroup/memory/y/memory.oom_control",
            "under_oom 0\noom_kill 3\n",
        ),
    ],
)
def test_the_kernel_counts_whom_it_killed_for_memory(tmp_path, groups, events, text):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    assert oom_kills(tmp_path) is None
    (tmp_path / events).parent.mkdir(parents=True)
    (tmp_path / events).write_text(text)
    assert oom_kills(tmp_path) == 3
    assert oom_kills(tmp_path / "nowhere") is None

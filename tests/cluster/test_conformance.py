"""What every backend does: one suite, run by both on two real executors."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import sys
import threading
import time

import pytest
from pyspark import InheritableThread

from spark_dl.cluster.barrier import BarrierBackend
from spark_dl.cluster.plan import LaunchRequest, Timeouts
from spark_dl.cluster.resources import describe_slots
from spark_dl.cluster.restart import RestartPolicy
from spark_dl.cluster.supervisor import run_on_cluster
from spark_dl.cluster.tfos import TensorFlowOnSparkBackend
from spark_dl.errors import (
    CancelledError,
    ClusterError,
    ConfigError,
    ResourceError,
    RetryableTrainingFailedError,
    TimeoutExpiredError,
    TrainingFailedError,
)
from spark_dl.ports import PortRange
from spark_dl.testing import descendants, is_alive

pytestmark = pytest.mark.cluster

BACKENDS = {"barrier": BarrierBackend, "tensorflowonspark": TensorFlowOnSparkBackend}


@pytest.fixture(params=BACKENDS)
def backend(request, cluster_spark):
    return BACKENDS[request.param](cluster_spark)


def run(backend, function, value=None, **settings):
    return run_on_cluster(
        backend,
        LaunchRequest(function=function, value=value, num_workers=2, name="test", **settings),
    )


def describe(value, context):
    print(f"line of rank {context.rank}")
    return {
        "value": value,
        "rank": context.rank,
        "world_size": context.world_size,
        "backend": context.backend,
        "cores": context.cores,
        "tf_config": json.loads(os.environ["TF_CONFIG"]),
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "pid": os.getpid(),
        "agent": os.getppid(),
    }


def fail_on(rank, context):
    if context.rank == rank:
        print("just before the end")
        message = f"boom at {time.time()}"
        raise ValueError(message)
    time.sleep(600)


def wait_for_ever(value, context):
    context.report({"kind": "pid", "pid": os.getpid(), "agent": os.getppid()})
    time.sleep(600)


def assert_all_end(pids, deadline_s=30):
    deadline = time.monotonic() + deadline_s
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.05)


def test_every_rank_runs_once_and_knows_its_place(backend):
    lines = []
    results = run(
        backend, describe, {"a": 1}, on_log=lambda rank, host, line: lines.append((rank, line))
    )
    assert [r["rank"] for r in results] == [0, 1]
    for rank, result in enumerate(results):
        assert result["value"] == {"a": 1}
        assert (result["world_size"], result["backend"], result["cores"]) == (2, backend.name, 1)
        assert result["gpus"] == ""
        config = result["tf_config"]
        assert config["cluster"] == results[0]["tf_config"]["cluster"]
        kind, index = ("chief", 0) if rank == 0 else ("worker", 0)
        assert (config["task"]["type"], config["task"]["index"]) == (kind, index)
    assert results[0]["agent"] != results[1]["agent"]
    assert {(0, "line of rank 0"), (1, "line of rank 1")} <= set(lines)
    assert_all_end([result["pid"] for result in results])


def test_all_ports_lie_in_the_range_that_a_firewall_lets_through(backend, free_ports):
    span = PortRange(*free_ports(3))
    results = run(backend, describe, ports=span)
    cluster = results[0]["tf_config"]["cluster"]
    workers = [int(address.rpartition(":")[2]) for job in cluster.values() for address in job]
    # the third is the control channel's
    assert len(set(workers) & set(span)) == 2
    with pytest.raises(TrainingFailedError, match=r"no port of cluster\.ports .* for a worker"):
        run(backend, describe, ports=PortRange(span.low, span.low + 1))


def last_job(spark):
    jobs = spark._jsc.sc().statusStore().jobsList(None)
    return max((jobs.apply(n) for n in range(jobs.size())), key=lambda job: job.jobId())


def test_its_job_has_a_name_in_sparks_pages(backend, cluster_spark):
    run(backend, describe, title="train digits", attempt=2)
    last = last_job(cluster_spark)
    assert last.description().get() == "spark_dl: train digits, 2 workers, attempt 2"
    assert last.jobGroup().get().startswith("spark_dl-test-")


@pytest.mark.parametrize(
    ("theirs", "shown"),
    [("my digits", "my digits"), ("", "spark_dl: train digits, 2 workers, attempt 1")],
)
def test_its_job_keeps_the_group_of_its_caller(backend, cluster_spark, theirs, shown):
    context = cluster_spark.sparkContext
    context.setJobGroup("mine", theirs)
    try:
        run(backend, describe, title="train digits")
    finally:
        for name in ("spark.jobGroup.id", "spark.job.description"):
            context.setLocalProperty(name, None)
    last = last_job(cluster_spark)
    assert (last.jobGroup().get(), last.description().get()) == ("mine", shown)


def test_tensorflowonspark_is_no_label(cluster_spark):
    # only TFSparkNode.run writes "environment" into TF_CONFIG
    for result in run(TensorFlowOnSparkBackend(cluster_spark), describe):
        assert result["tf_config"]["environment"] == "cloud"
    for result in run(BarrierBackend(cluster_spark), describe):
        assert "environment" not in result["tf_config"]


def test_five_runs_in_one_driver_two_of_which_fail(backend):
    delays = []
    for failing in (None, 1, None, 0, None):
        if failing is None:
            assert [r["rank"] for r in run(backend, describe)] == [0, 1]
            continue
        with pytest.raises(TrainingFailedError) as caught:
            run(backend, fail_on, failing)
        ended = time.time()
        failure = caught.value.failures[0]
        assert (failure.rank, failure.error) == (failing, "ValueError")
        delays.append(ended - float(failure.message.rpartition(" ")[2]))
        text = str(caught.value)
        assert text.startswith(f"[rank {failing} on {failure.host}] ValueError: boom")
        assert "in fail_on" in text
        assert "child.py" not in text
        assert "just before the end" in text
    # the contract; one of the two may fall into a pause of a shared machine
    assert min(delays) < 10
    assert max(delays) < 30


def test_a_killed_child_is_reported_with_its_signal(backend):
    def die(value, context):
        if context.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    with pytest.raises(
        RetryableTrainingFailedError, match=r"\[rank 1 on .*\] killed by SIGKILL.*memoryOverhead"
    ):
        run(backend, die)
    assert run(backend, describe)


def test_a_child_that_leaves_early_is_a_failure(backend):
    def leave(value, context):
        if context.rank == 0:
            os._exit(0)
        time.sleep(600)

    with pytest.raises(
        TrainingFailedError, match="exit code 0: the worker process ended without a result"
    ):
        run(backend, leave)


def test_a_childs_own_processes_end_with_it(backend):
    def start_helper(value, context):
        import subprocess

        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        return {"pids": [os.getpid(), helper.pid]}

    assert_all_end([pid for result in run(backend, start_helper) for pid in result["pids"]])


def test_a_resubmitted_stage_is_no_second_attempt(backend):
    """With one worker on two slots Spark has room to try again at once."""
    pids = []

    def kill_the_agent(rank, event):
        if event["kind"] == "pid":
            pids.append(event["pid"])
            os.kill(event["agent"], signal.SIGKILL)

    request = LaunchRequest(
        function=wait_for_ever, value=None, num_workers=1, name="test", on_event=kill_the_agent
    )
    with pytest.raises((ClusterError, RetryableTrainingFailedError)):
        run_on_cluster(backend, request)
    assert len(pids) == 1
    assert_all_end(pids)


def test_no_child_outlives_a_killed_agent(backend):
    pids, helpers = {}, []

    def kill_one_agent(rank, event):
        if event["kind"] == "pid":
            pids[rank] = event
            helpers.extend(descendants(event["agent"]))
        if len(pids) == 2 and "killed" not in pids:
            pids["killed"] = pids[1]
            os.kill(pids[1]["agent"], signal.SIGKILL)

    with pytest.raises((ClusterError, RetryableTrainingFailedError)):
        run(backend, wait_for_ever, on_event=kill_one_agent)
    assert {pids[rank]["pid"] for rank in (0, 1)} <= set(helpers)
    assert_all_end(helpers)  # TensorFlowOnSpark's manager too
    assert run(backend, describe)


def test_where_there_is_no_room_for_another_try_the_error_says_what_was_lost(backend):
    def kill_an_agent(rank, event):
        if rank == 1 and event["kind"] == "pid":
            os.kill(event["agent"], signal.SIGKILL)

    def full(check_stop):
        check_stop()
        message = "Spark has no room for it"
        raise ResourceError(message)

    settings = {"restarts": RestartPolicy(max_restarts=1, backoff_s=0.01), "make_room": full}
    with pytest.raises((ClusterError, RetryableTrainingFailedError)) as ended:
        run(backend, wait_for_ever, on_event=kill_an_agent, **settings)
    notes = getattr(ended.value, "__notes__", ())
    told = "\n".join([str(ended.value), *notes])
    assert "room" not in told.splitlines()[0], "what was lost comes first"
    assert "not restarted: Spark has no room for it" in told
    assert ended.value.retryable


def kill_as_the_page_does(context):
    for number in context.statusTracker().getActiveJobsIds():
        context._jsc.sc().cancelJob(number)


@pytest.mark.parametrize(
    "how",
    [
        lambda context: context.cancelAllJobs(),
        lambda context: context.cancelJobsWithTag("my"),
        kill_as_the_page_does,
    ],
    ids=["all", "tag", "page"],
)
def test_cancelling_the_spark_job_cancels_the_run(backend, cluster_spark, how):
    pids, context = {}, cluster_spark.sparkContext

    def cancel(rank, event):
        if event["kind"] == "pid":
            pids[rank] = event["pid"]
            if len(pids) == 2:
                how(context)

    context.addJobTag("my")
    try:
        with pytest.raises(CancelledError, match="cancelled"):
            run(backend, wait_for_ever, on_event=cancel)
    finally:
        context.removeJobTag("my")
    assert_all_end(pids.values())
    assert run(backend, describe)


def test_a_run_is_told_that_it_is_cancelled_before_its_workers_stop(backend):
    """Whoever cancels may kill this process a moment later, as YARN does."""
    pids, alive = {}, []

    def note(rank, event):
        if event["kind"] == "pid":
            pids[rank] = event["pid"]

    with pytest.raises(CancelledError, match="enough"):
        run(
            backend,
            wait_for_ever,
            on_event=note,
            stop_reason=lambda: "enough" if len(pids) == 2 else None,
            on_cancel=lambda error: alive.append(all(map(is_alive, pids.values()))),
        )
    assert alive == [True]
    assert_all_end(pids.values())


def test_start_has_a_deadline_that_says_what_it_waited_for(backend, tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        TimeoutExpiredError,
        match=r"0 of 2 are ready; not ready: rank 0 .*, 1 .*cluster\.start_timeout_s",
    ):
        run(backend, describe, preload=("slow_to_import",), timeouts=Timeouts(start_s=5))


def test_the_others_end_at_once_when_a_host_is_silent(backend, monkeypatch):
    """Long before it is decided what to do about it."""
    undecided_s = 9.0
    monkeypatch.setattr("spark_dl.cluster.failure.CAUSE_PATIENCE_S", undecided_s)
    pids, ended = {}, queue.SimpleQueue()

    def note_its_end(pid):
        assert_all_end([pid], deadline_s=120)
        ended.put(time.monotonic())

    def stop_one_agent(rank, event):
        if event["kind"] == "pid":
            pids[rank] = event
        if len(pids) == 2 and ended.empty() and "stopped" not in pids:
            pids["stopped"] = pids[1]
            os.kill(pids[1]["agent"], signal.SIGSTOP)
            threading.Thread(target=note_its_end, args=[pids[0]["pid"]], daemon=True).start()

    try:
        with pytest.raises(RetryableTrainingFailedError, match=r"\[rank 1 on .*\] WorkerLost"):
            run(backend, wait_for_ever, on_event=stop_one_agent, timeouts=Timeouts(lost_s=2))
        over = time.monotonic()
    finally:
        os.kill(pids[1]["agent"], signal.SIGCONT)
    assert ended.get(timeout=30) < over - undecided_s / 3
    assert_all_end([pids[rank]["pid"] for rank in (0, 1)])


def test_busy_slots_are_told_with_the_jobs_that_hold_them(cluster_spark, tmp_path):
    """Until a file says that they may end."""
    gate = tmp_path / "gate"

    def hold(batches):
        deadline = time.monotonic() + 300
        while not gate.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield from batches

    def etl():
        cluster_spark.sparkContext.setJobDescription("nightly etl")
        cluster_spark.range(0, 1, 1, 1).mapInArrow(hold, "id long").collect()

    job = InheritableThread(target=etl, daemon=True)
    job.start()
    try:
        deadline = time.monotonic() + 60
        while "busy: 1 by job" not in (told := describe_slots(cluster_spark)):
            assert time.monotonic() < deadline, told
        wanted = r"2 task slots, 1 of them busy: 1 by job \d+ \(nightly etl\)"
        assert re.fullmatch(wanted, told), told
    finally:
        gate.touch()
        job.join(60)


def test_a_function_that_cannot_be_sent_is_refused_at_once(backend):
    spark = backend._spark
    with pytest.raises(ConfigError, match="cannot send the function to the executors"):
        run(backend, lambda value, context: spark)


def test_agents_do_not_keep_what_a_node_did_to_their_process(cluster_spark):
    run(TensorFlowOnSparkBackend(cluster_spark), describe)

    def look(batches):
        import pyarrow as pa

        for _ in batches:
            pass
        seen = {
            "environment": sorted({"TF_CONFIG", "CUDA_VISIBLE_DEVICES"} & os.environ.keys()),
            "executor_id": os.path.exists("executor_id"),
        }
        yield pa.RecordBatch.from_pydict({"seen": [json.dumps(seen)]})

    rows = cluster_spark.range(0, 4, 1, 4).mapInArrow(look, "seen string").collect()
    assert {row.seen for row in rows} == {json.dumps({"environment": [], "executor_id": False})}

"""Two ranks on one executor: each gets its own rows, cores and GPUs, exactly."""

from __future__ import annotations

import os

import pytest

import spark_dl
from spark_dl.cluster.barrier import BarrierBackend
from spark_dl.cluster.plan import LaunchRequest
from spark_dl.cluster.profile import WorkerResources
from spark_dl.cluster.resources import choose_num_workers, wait_for_slots
from spark_dl.cluster.supervisor import run_on_cluster
from spark_dl.cluster.tfos import TensorFlowOnSparkBackend
from spark_dl.errors import ResourceError
from spark_dl.shards.assignment import Assignment

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROWS, BATCH, EPOCHS = 90, 12, 2


def read_rows(folder, context):
    """Return the ids that this rank meets, step by step, read as the training reads them."""
    from spark_dl.shards import Manifest
    from spark_dl.training.data import ShardReader, training_dataset

    manifest = Manifest.read(folder)
    assignment = assigned(manifest, context.world_size, context.rank)
    reader = ShardReader(folder, manifest.split("train"), manifest.rows_per_record)
    batches = training_dataset(reader, assignment, manifest.spec, epochs=range(EPOCHS), bare=True)
    order = [int(i) for batch in evaluation(reader, manifest) for i in batch]
    return {
        "steps": [[int(value) for value in x.numpy()] for x, _ in batches],
        "order": order,
        "local_rank": context.local_rank,
    }


def assigned(manifest, world_size, rank):
    return Assignment(
        rows=manifest.totals["train"],
        world_size=world_size,
        rank=rank,
        global_batch_size=BATCH,
        seed=4,
        shard_rows=tuple(shard.rows for shard in manifest.split("train")),
        rows_per_record=manifest.rows_per_record,
    )


def evaluation(reader, manifest):
    from spark_dl.training.data import evaluation_dataset

    rows = range(manifest.totals["train"])
    for x, _ in evaluation_dataset(reader, manifest.spec, rows, batch_size=7, bare=True):
        yield x.numpy()


@pytest.mark.parametrize(
    "backend",
    [BarrierBackend, pytest.param(TensorFlowOnSparkBackend, marks=pytest.mark.long)],
)
def test_two_ranks_of_one_executor_get_their_exact_rows(one_executor_spark, tmp_path, backend):
    frame = one_executor_spark.range(0, ROWS, 1, 3).selectExpr("id as x", "cast(id as float) as y")
    dataset = spark_dl.prepare(
        frame, features=["x"], label="y", path=str(tmp_path / "d"), splits={"train": 1.0}
    )
    request = LaunchRequest(function=read_rows, value=dataset.path, num_workers=2, name="rows")
    results = run_on_cluster(backend(one_executor_spark), request)
    assert [result["local_rank"] for result in results] == [0, 1]
    order = results[0]["order"]
    assert sorted(order) == list(range(ROWS))
    # as the contract says, from the assignment alone
    for rank, result in enumerate(results):
        assignment = assigned(dataset.manifest, 2, rank)
        expected = [
            [order[row] for row in batch.rows]
            for epoch in range(EPOCHS)
            for batch in assignment.epoch(epoch)
        ]
        assert result["steps"] == expected
    met = [row for result in results for step in result["steps"][: ROWS // BATCH] for row in step]
    assert len(met) == len(set(met)) == ROWS // BATCH * BATCH


def describe(value, context):
    return {
        "cores": context.cores,
        "threads": os.environ["OMP_NUM_THREADS"],
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "malloc": os.environ["GLIBC_TUNABLES"],
    }


@pytest.fixture(params=[BarrierBackend, TensorFlowOnSparkBackend])
def launched(request, one_executor_spark):
    def launch(num_workers, resources):
        asked = LaunchRequest(
            function=describe, value=None, num_workers=num_workers, resources=resources, name="r"
        )
        return run_on_cluster(request.param(one_executor_spark), asked)

    return launch


def test_each_rank_gets_a_gpu_of_its_own(launched):
    """What Spark says it gave: the GPUs are a script's words."""
    ranks = launched(2, WorkerResources(gpus=1))
    assert sorted(rank["gpus"] for rank in ranks) == ["3", "5"]
    assert {rank["cores"] for rank in ranks} == {1}


def test_ranks_that_ask_for_no_gpu_see_none(launched):
    assert [rank["gpus"] for rank in launched(2, WorkerResources())] == ["", ""]


def test_one_worker_gets_all_cores_of_its_executor(launched, one_executor_spark):
    whole = WorkerResources(cores=2)
    facts = wait_for_slots(
        one_executor_spark, None, timeout_s=60, busy_timeout_s=60, resources=whole
    )
    assert choose_num_workers(None, facts) == 1
    assert launched(1, whole) == [
        {
            "cores": 2,
            "threads": "2",
            "gpus": "",
            "malloc": "glibc.malloc.hugetlb=1",
        }
    ]


def test_more_whole_executors_than_there_are_is_refused_at_once(one_executor_spark):
    facts = wait_for_slots(
        one_executor_spark, 2, timeout_s=60, busy_timeout_s=60, resources=WorkerResources(cores=2)
    )
    with pytest.raises(ResourceError, match="2 workers do not fit: Spark has 1 task slots"):
        choose_num_workers(2, facts)

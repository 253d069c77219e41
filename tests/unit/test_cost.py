"""What a run has cost, from what it held and what it did."""

from __future__ import annotations

import doctest

import pytest

from spark_dl.cluster import resources
from spark_dl.pipeline import cost as module
from spark_dl.pipeline import naming
from spark_dl.pipeline.cost import Held, cost, work_done

GIB = 1 << 30
HELD = Held(cores=4, memory_bytes=10**10)


@pytest.mark.parametrize(
    ("conf", "workers", "cores", "gib"),
    [
        # four workers in two executors of 2 GiB heap and 1 GiB overhead
        (
            {
                "spark.master": "yarn",
                "spark.executor.cores": "2",
                "spark.executor.memory": "2g",
                "spark.executor.memoryOverhead": "1g",
            },
            4,
            1,
            6.0,
        ),
        ({"spark.master": "local-cluster[2,1,1024]", "spark.executor.memory": "1g"}, 2, 1, 2.75),
        # nothing says how many cores an executor has: each worker counts as alone
        ({"spark.master": "spark://m:7077", "spark.executor.memory": "1g"}, 3, 2, 3 * 1.375),
        ({"spark.master": "local[2]", "spark.driver.memory": "3g"}, 2, 1, 3.0),
    ],
)
def test_memory_is_that_of_the_executors(conf, workers, cores, gib):
    held = Held.of(conf, num_workers=workers, cores_per_worker=cores)
    assert held == Held(cores=workers * cores, memory_bytes=int(gib * GIB))


def test_a_run_that_was_tried_twice_has_cost_both_tries():
    failed = cost(HELD, 10.0, {}, {})
    assert failed["idle_share"] == 1.0, "its work is lost"
    done = work_done([{"steps": 10, "resumed_from": 4, "cpu_s": 20.0}, {"cpu_s": 20.0}], 100)
    assert done == {"rows": 600.0, "cpu_seconds": 40.0}
    both = cost(HELD, 10.0, done, failed)
    assert both == {
        "core_seconds": 80.0,
        "cpu_seconds": 40.0,
        "gb_seconds": 200.0,
        "rows": 600.0,
        "rows_per_core_second": 7.5,
        "idle_share": 0.5,
    }


def test_more_threads_than_cores_are_not_less_than_no_idleness():
    assert cost(HELD, 1.0, {"cpu_seconds": 99.0, "rows": 1.0}, {})["idle_share"] == 0.0


@pytest.mark.parametrize("told", [module, naming, resources])
def test_the_examples_are_true(told):
    result = doctest.testmod(told)
    assert result.failed == 0
    assert result.attempted

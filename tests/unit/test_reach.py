"""What a user is told of where TensorBoard is."""

from __future__ import annotations

import doctest

import pytest

from spark_dl.config import TensorBoardConfig, build
from spark_dl.errors import ConfigError
from spark_dl.monitoring import reach
from spark_dl.monitoring.reach import DriverPlace, ways_to_reach

URL = "http://127.0.0.1:40001/"


def place(**conf):
    settings = {name.replace("_", "."): value for name, value in conf.items()}
    return DriverPlace(host="node7", conf=settings, user="alice")


def test_here_it_is_its_own_address():
    assert ways_to_reach(URL, place(spark_submit_deployMode="client")) == URL


def test_from_a_driver_that_is_elsewhere_a_tunnel_leads_to_it():
    told = ways_to_reach(URL, place(spark_submit_deployMode="cluster"))
    assert told == f"{URL} after: ssh -N -L 40001:127.0.0.1:40001 alice@node7"


def test_an_address_that_all_reach_needs_no_tunnel():
    url = "http://10.0.0.7:40001/"
    assert ways_to_reach(url, place(spark_submit_deployMode="cluster")) == url


def test_on_databricks_it_is_the_driver_proxys():
    conf = {
        "spark.databricks.workspaceUrl": "adb-1.2.example.net",
        "spark.databricks.clusterUsageTags.clusterOwnerOrgId": "42",
        "spark.databricks.clusterUsageTags.clusterId": "1125-abc",
    }
    told = ways_to_reach(URL, DriverPlace(host="node7", conf=conf, user="alice"))
    assert told == "https://adb-1.2.example.net/driver-proxy/o/42/1125-abc/40001/"


def test_what_the_user_says_wins():
    told = ways_to_reach(
        URL, place(spark_submit_deployMode="cluster"), "https://hub/user/me/proxy/{port}/"
    )
    assert told == "https://hub/user/me/proxy/40001/"


@pytest.mark.parametrize("prefix", ["proxy/{port}", "/a b", "/{other}/", "https://hub/"])
def test_a_prefix_that_is_no_path_is_refused(prefix):
    with pytest.raises(ConfigError, match="expected a path"):
        build(TensorBoardConfig, {"path_prefix": prefix}, where="tensorboard")


def test_the_example_is_true():
    assert doctest.testmod(reach).failed == 0

"""The kinds of storage that the contract is held against."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest

from spark_dl.storage import normalise
from spark_dl.storage.bridge import close_shared_bridge

if TYPE_CHECKING:
    from collections.abc import Iterator

#: viewfs is Hadoop's own view of other file systems: here of a local folder, so that the whole way
#: through the JVM is walked without HDFS.
_CORE_SITE = """\
<configuration>
  <property><name>fs.viewfs.mounttable.test.link./data</name><value>file://{folder}</value></property>
</configuration>
"""


@pytest.fixture(scope="session")
def hadoop_root(tmp_path_factory) -> Iterator[str]:
    """A folder behind a real bridge."""
    folder = tmp_path_factory.mktemp("viewed")
    conf = tmp_path_factory.mktemp("hadoop-conf")
    (conf / "core-site.xml").write_text(_CORE_SITE.format(folder=folder))
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("HADOOP_CONF_DIR", str(conf))
        environ.delenv("CONTAINER_ID", raising=False)
        close_shared_bridge()
        yield "viewfs://test/data"
        close_shared_bridge()


#: Elsewhere the same contract is held against what this names (`tests/clusters`).
GIVEN = os.environ.get("SPARK_DL_CONTRACT_ROOT")


@pytest.fixture(params=[GIVEN] if GIVEN else ["local", "memory", "hadoop"])
def root(request, tmp_path) -> str:
    """Give an empty folder on each kind of storage; it is not there yet."""
    name = uuid.uuid4().hex
    if GIVEN:
        return f"{normalise(GIVEN)}/{name}"
    if request.param == "local":
        return str(tmp_path / name)
    if request.param == "memory":
        return f"memory://{name}"
    return f"{request.getfixturevalue('hadoop_root')}/{name}"

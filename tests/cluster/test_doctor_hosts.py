"""The doctor on executors whose host lacks something: their Python sees mounts of its own.

`make test-long` runs them. What lies between hosts is in ``tests/clusters/test_doctor_network.py``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doctors import conf, is_mended, only, only_warned

UNSHARE = shutil.which("unshare")


def why_not() -> str | None:
    if UNSHARE is None:
        return "mounts of one's own need util-linux"
    done = subprocess.run([UNSHARE, "--mount", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else f"no mounts of one's own: {done.stderr.decode()}"


pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


@pytest.fixture
def host(tmp_path):
    """Give the setting of executors on whose host commands were run before they started."""

    def after(*commands: str) -> list[str]:
        python = tmp_path / "python"
        script = "; ".join((*commands, f'exec {sys.executable} "$@"'))
        python.write_text(f"#!/bin/sh\nexec {UNSHARE} --mount sh -euc '{script}' python \"$@\"\n")
        python.chmod(0o755)
        return conf("spark.pyspark.python", python)

    return after


def test_little_shared_memory(doctor, host):
    small = "mount -t tmpfs -o size=32m none /dev/shm"
    remedy = only_warned(doctor(*host(small)), "shared memory")
    mount = re.search(r"mount -o \S+ /dev/shm", remedy)[0]
    assert is_mended(doctor(*host(small, mount)), "shared memory")


def test_no_shared_memory_left(doctor, host):
    full = "mount -t tmpfs -o size=1m none /dev/shm; head -c 1m /dev/zero >/dev/shm/all"
    remedy = only(doctor(*host(full)), "shared memory")
    mount = re.search(r"mount -o \S+ /dev/shm", remedy)[0]
    assert is_mended(doctor(*host(full, mount)), "shared memory")


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        ("mount -t tmpfs none {0}", "cannot read"),
        ("mount --bind {0} {0}; mount -o remount,bind,ro {0}", "cannot write"),
    ],
)
def test_a_folder_that_executors_have_not_mounted_or_may_not_write(
    doctor, host, tmp_path, mount, text
):
    alone = tmp_path / "alone"
    alone.mkdir()
    executors = host(mount.format(alone))
    report = doctor("--set", f"runs={alone}/runs", *executors)
    remedy = only(report, "storage, executors")
    assert text in report["storage, executors"]["text"]
    assert f"make {alone}/runs a folder that driver and executors have mounted" in remedy
    assert is_mended(doctor("--set", f"runs={tmp_path}/runs", *executors), "storage, executors")


def test_a_host_with_little_memory(doctor, host, tmp_path):
    told = Path("/proc/meminfo").read_text()
    seen = tmp_path / "meminfo"  # mounted over the kernel's, as LXCFS does in containers
    seen.write_text(re.sub(r"(?m)^MemAvailable:.*$", f"MemAvailable: {1200 << 10} kB", told))
    executors = host(f"mount --bind {seen} /proc/meminfo")
    remedy = only_warned(doctor(*executors), "host memory")
    assert "fewer workers" in remedy
    assert is_mended(doctor("--set", "cluster.num_workers=1", *executors), "host memory")

"""Storage on S3, by s3fs, against a server that speaks S3: the same contract as everywhere.

In an environment of its own: Amazon's client wants an older python-dateutil than the set-up has.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clusters.environment import ROOT, build_wheel, cache_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)

BUCKET = "spark-dl"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def run(*command: str, **options) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=800, **options
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-6000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def s3_python() -> str:
    """Give the Python of a venv with the wheel, its extra `s3`, and the server."""
    with cache_lock("s3") as folder:
        wheel = build_wheel(folder)
        python = folder / "venv" / "bin" / "python"
        if not python.exists():
            run(sys.executable, "-m", "venv", str(folder / "venv"))
        pip = (str(python), "-m", "pip", "install", "--quiet")
        run(*pip, f"{wheel}[s3]")
        # s3fs decides which botocore; each boto3 goes with the botocore of its own number
        code = "import importlib.metadata as m; print(m.version('botocore'))"
        boto3 = f"boto3=={run(str(python), '-c', code).strip()}"
        run(*pip, "moto[server]", boto3, "pytest")
        run(*pip, "--no-deps", "--force-reinstall", str(wheel))
        return str(python)


@contextlib.contextmanager
def s3_server(python: str) -> Iterator[str]:
    """Run the server; gives its URL."""
    with subprocess.Popen(
        [python, str(Path(__file__).with_name("s3_server.py")), BUCKET],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **CREDENTIALS},
    ) as server:
        try:
            url = server.stdout.readline().strip()
            assert url, f"the server ended with {server.wait()}"
            yield url
        finally:
            server.stdin.close()


def test_the_contract_of_storage_holds_on_s3(s3_python, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    tests = ROOT / "tests" / "storage"
    with s3_server(s3_python) as url:
        told = run(
            *(s3_python, "-P", "-m", "pytest", "-q", "-c", str(tmp_path / "pytest.ini")),
            *("-p", "no:cacheprovider", f"--confcutdir={tests}", str(tests / "test_contract.py")),
            cwd=tmp_path,
            env={
                **os.environ,
                **CREDENTIALS,
                "AWS_ENDPOINT_URL": url,
                "SPARK_DL_CONTRACT_ROOT": f"s3://{BUCKET}/contract",
            },
        )
    assert " passed" in told

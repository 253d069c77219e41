"""Everything on S3, against a server that speaks it: the workers by s3fs, Spark by Hadoop's S3A.

In an environment of its own: Amazon's client wants an older python-dateutil than the set-up has.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clusters.environment import ROOT, build_wheel, cache_lock, digest, made, python_above, run
from clusters.flow import submit_flow
from clusters.hadoop import maven_jars

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)

POM = Path(__file__).with_name("s3-pom.xml")
BUCKET = "spark-dl"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def s3_python() -> str:
    """Give the Python of a venv with the wheel, its extra `s3`, and the server."""
    with cache_lock("s3") as folder:
        wheel = build_wheel(folder)
        python = folder / "venv" / "bin" / "python"
        pip = (str(python), "-m", "pip", "install", "--quiet")
        exact = (ROOT / "constraints.txt").read_text().splitlines(keepends=True)
        constraints = "".join(line for line in exact if not line.startswith("python-dateutil"))
        pins = digest(constraints.encode(), sys.version.encode())
        if not made(folder / "pins", pins):
            (folder / "constraints.txt").write_text(constraints)
            run(sys.executable, "-m", "venv", "--clear", str(folder / "venv"))
            pip = (*pip, "-c", str(folder / "constraints.txt"))
            run(*pip, f"{wheel}[s3]")
            # s3fs decides which botocore; each boto3 goes with the botocore of its own number
            code = "import importlib.metadata as m; print(m.version('botocore'))"
            boto3 = f"boto3=={run(str(python), '-c', code).strip()}"
            run(*pip, "moto[server]", boto3, "pytest")
            (folder / "pins").write_text(pins)
        run(*pip, "--no-deps", "--force-reinstall", str(wheel))
        return str(python)


@pytest.fixture(scope="module")
def training_python(s3_python, tmp_path_factory) -> str:
    """Give a Python that has all that and, below it, the set-up's TensorFlow and Spark."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folders = (run(s3_python, "-c", code).strip(), sysconfig.get_path("purelib"))
    lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
    return python_above(tmp_path_factory.mktemp("training") / "venv", lines)


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


def test_everything_on_s3(s3_python, training_python, tmp_path):
    jars = maven_jars("s3-client", POM, without="io.netty,org.slf4j")  # Spark brings those
    with s3_server(s3_python) as url:
        settings = {
            "spark.master": "local-cluster[2,1,1024]",
            "spark.driver.extraClassPath": f"{jars}/*",
            "spark.executor.extraClassPath": f"{jars}/*",
            "spark.hadoop.fs.s3a.endpoint": url,
            "spark.hadoop.fs.s3a.endpoint.region": CREDENTIALS["AWS_DEFAULT_REGION"],
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.pyspark.python": training_python,
        }
        environ = {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
        root = f"s3a://{BUCKET}/flow"
        told = submit_flow(tmp_path, root, settings=settings, environ=environ)
        assert told["rows"] == 200
        assert told["model"].startswith(f"{root}/runs/")
        code = (
            "import json, sys, fsspec; fs = fsspec.filesystem('s3'); run = sys.argv[1]; "
            "print(json.dumps([fs.find(run), json.loads(fs.cat(run + '/status.json'))]))"
        )
        names, status = json.loads(
            run(s3_python, "-c", code, told["run"], env=os.environ | environ)
        )
    assert status["status"] == "succeeded"
    for part in ("metrics.jsonl", "tfevents", "checkpoint.json", "model/1/model.json"):
        assert any(part in name for name in names)

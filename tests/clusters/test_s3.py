"""Everything on S3, against a server that speaks it: the workers by s3fs, Spark by Hadoop's S3A.

In an environment of its own: Amazon's client wants an older python-dateutil than the set-up has.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clusters.boards import check_tensorboard
from clusters.environment import ROOT, build_wheel, cache_lock, digest, made, python_above, run
from clusters.flow import SETTINGS, SPARK_HOME, submit_flow
from clusters.guide import blocks, shell, user_environ
from clusters.hadoop import maven_jars
from doctors import ask, is_mended, only, spark_dl, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)

POM = Path(__file__).with_name("s3-pom.xml")
BUCKET = "spark-dl"
BUCKET_OF_FLOWS = f"s3a://{BUCKET}"
MODEL = """
def build(spec, params):
    import keras

    inputs = keras.Input(spec["pixels"].shape, name="pixels")
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(inputs))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return model
"""
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


@pytest.fixture(scope="module")
def server(s3_python) -> Iterator[str]:
    with s3_server(s3_python) as url:
        yield url


@pytest.fixture(scope="module")
def settings(training_python) -> dict[str, str]:
    """Give what makes an application small, and lets it reach the server by Hadoop's client."""
    jars = maven_jars("s3-client", POM, without="io.netty,org.slf4j")  # Spark brings those
    return {
        "spark.master": "local-cluster[2,1,1024]",
        "spark.driver.extraClassPath": f"{jars}/*",
        "spark.executor.extraClassPath": f"{jars}/*",
        "spark.pyspark.python": training_python,
    }


@pytest.fixture(scope="module")
def flown(server, settings, tmp_path_factory) -> dict:
    """Give what the whole flow on the server told."""
    reaches = {
        "spark.hadoop.fs.s3a.endpoint": server,
        "spark.hadoop.fs.s3a.endpoint.region": CREDENTIALS["AWS_DEFAULT_REGION"],
        "spark.hadoop.fs.s3a.path.style.access": "true",
    }
    folder = tmp_path_factory.mktemp("flow")
    return submit_flow(
        folder,
        f"{BUCKET_OF_FLOWS}/{folder.name}",  # a second try has its own
        settings=settings | reaches,
        environ={**CREDENTIALS, "AWS_ENDPOINT_URL": server},
    )


def read(python: str, url: str, run_path: str) -> tuple[list[str], dict]:
    """Return the names of a run's files, and its status."""
    code = (
        "import json, sys, fsspec; fs = fsspec.filesystem('s3'); run = sys.argv[1]; "
        "print(json.dumps([fs.find(run), json.loads(fs.cat(run + '/status.json'))]))"
    )
    environ = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": url}
    names, status = json.loads(run(python, "-c", code, run_path, env=environ))
    return names, status


def test_everything_on_s3(s3_python, server, flown):
    assert flown["rows"] == 200
    assert all("/site-packages/spark_dl/" in path for path in flown["packages"])
    assert flown["model"].startswith(f"{BUCKET_OF_FLOWS}/flow")
    names, status = read(s3_python, server, flown["run"])
    assert status["status"] == "succeeded"
    for part in ("metrics.jsonl", "tfevents", "checkpoint.json", "model/1/model.json"):
        assert any(part in name for name in names)


def test_tensorboard_shows_a_run_on_s3(training_python, server, flown):
    runs, _, name = flown["run"].rpartition("/")
    environ = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": server}
    check_tensorboard(spark_dl(training_python), runs, name, environ)


def test_the_doctor_without_credentials(training_python, server, tmp_path):
    config = write_config(tmp_path)
    reaches = {"AWS_ENDPOINT_URL": server, "AWS_EC2_METADATA_DISABLED": "true"}
    nobody = {"HOME": str(tmp_path), **reaches}  # no file of credentials either

    def doctor(**environ):
        words = ("--config", config, "--set", f"runs={BUCKET_OF_FLOWS}/doctor")
        return ask(*words, python=training_python, PYSPARK_PYTHON=training_python, **environ)

    assert "has credentials" in only(doctor(**nobody), "storage, driver")
    mended = doctor(**nobody, **CREDENTIALS)
    assert is_mended(mended, "storage, driver")
    assert is_mended(mended, "storage, executors")


def test_the_page_as_it_stands(s3_python, server, settings, flown, tmp_path):
    root = flown["run"].rpartition("/runs/")[0]
    places = {
        "s3.bucket": f"{root}/",  # where the table lies
        "s3.server": server,
        "s3.packages": "--name s3",
    }
    page = blocks("storage.md", places)
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "job.yaml").write_text(page["job"])
    (tmp_path / "model.py").write_text(MODEL)
    lines = [f"{name} {value}\n" for name, value in {**SETTINGS, **settings}.items()]
    (tmp_path / "spark-defaults.conf").write_text("".join(lines))
    variables = {**CREDENTIALS, "SPARK_HOME": SPARK_HOME, "SPARK_CONF_DIR": str(tmp_path)}
    environ = user_environ([os.path.join(SPARK_HOME, "bin")], variables)
    commands = page["submit"] + page["server"] + page["jobs"]
    done = shell(commands, folder=tmp_path, environ=environ)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"job"')]
    prepared, trained, inferred = map(json.loads, lines)
    assert inferred["rows"] == prepared["rows"]["test"]
    runs = f"{root}/digits/runs/{trained['run_id']}"
    names, status = read(s3_python, server, runs)
    assert status["status"] == "succeeded"
    assert any("model/1/model.json" in name for name in names)

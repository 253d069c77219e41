"""What Spark's driver gets of delegation tokens reaches the training processes while they run."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

import spark_dl
from spark_dl import _jvm
from spark_dl.storage import tokens

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DEADLINE_S = 120


def give_token(spark, service, password):
    """Add a token to those of Spark's driver, as Spark does when it has renewed one."""
    hadoop = spark.sparkContext._jvm.org.apache.hadoop
    kind, at = hadoop.io.Text("SPARK_DL_TEST"), hadoop.io.Text(service)
    token = hadoop.security.token.Token(bytearray(b"id"), bytearray(password), kind, at)
    hadoop.security.UserGroupInformation.getCurrentUser().addToken(token)


def patient(spec, params):
    """A model that is there once the process has the first token and then the second."""
    import keras

    path = os.environ["SPARK_DL_TOKEN_FILE"]
    deadline = time.monotonic() + DEADLINE_S
    for password in (b"first password", b"second password"):
        while not (os.path.exists(path) and password in Path(path).read_bytes()):
            if time.monotonic() > deadline:
                message = f"{password!r} did not come"
                raise TimeoutError(message)
            time.sleep(0.05)
        mode = stat.filemode(os.stat(path).st_mode)
        Path(params["seen"], f"{os.getpid()} {password.decode()} {mode}").touch()
    Path(params["seen"], "path").write_text(path)
    inputs = keras.Input((), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Reshape((1,))(inputs)))
    model.compile(optimizer="sgd", loss="mse")
    return model


def test_tokens_reach_the_processes_that_train(cluster_spark, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "_EVERY_S", 0.2)
    monkeypatch.delenv("SPARK_DL_TOKEN_FILE", raising=False)
    frame = cluster_spark.range(80).selectExpr(
        "cast(id as float) as x", "cast(id * 2 as float) as y"
    )
    dataset = spark_dl.prepare(
        frame, features=["x"], label="y", path=str(tmp_path / "dataset"), splits={"train": 1.0}
    )
    seen = tmp_path / "seen"
    seen.mkdir()
    service = f"service of {tmp_path}"
    assert service.encode() not in (_jvm.delegation_tokens(cluster_spark) or b"")
    give_token(cluster_spark, service, b"first password")

    def renew():
        deadline = time.monotonic() + DEADLINE_S
        while len(list(seen.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        give_token(cluster_spark, service, b"second password")

    thread = threading.Thread(target=renew)
    thread.start()
    run = spark_dl.train(
        patient,
        dataset,
        params={"seen": str(seen)},
        num_workers=2,
        global_batch_size=20,
        runs=tmp_path / "runs",
        backend="barrier",
        spark=cluster_spark,
        tensorboard=False,
    )
    thread.join()
    found = sorted(path.name.partition(" ")[2] for path in seen.iterdir() if " " in path.name)
    assert found == ["first password -rw-------"] * 2 + ["second password -rw-------"] * 2
    # the driver's own, for its JVM; a process that has ended leaves nothing behind
    assert b"second password" in Path(os.environ["SPARK_DL_TOKEN_FILE"]).read_bytes()
    assert not os.path.exists((seen / "path").read_text())
    # they are in nothing that the run has written
    written = [path for path in Path(run.path).rglob("*") if path.is_file()]
    assert written
    assert not any(b"first password" in path.read_bytes() for path in written)

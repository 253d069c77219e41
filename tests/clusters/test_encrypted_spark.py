"""`spark.authenticate`, `spark.network.crypto`, `spark.ssl`: all still works, from the wheel."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from clusters.environment import beside_spark, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).with_name("encrypted_training.py")


@pytest.mark.parametrize("kind", ["crypto", "tls"])
def test_jobs_run_where_sparks_traffic_is_encrypted(kind, environment, tmp_path, tmp_path_factory):
    python, environ = beside_spark(environment, tmp_path_factory.mktemp("python"))
    secret = environ["STORE_PASSWORD"] = secrets.token_hex(16)
    if kind == "tls":
        words = ("-genkeypair", "-alias", "spark", "-keyalg", "RSA", "-dname", "CN=localhost")
        run("keytool", *words, "-keystore", tmp_path / "keys", "-storepass", secret)
    said = run(python, SCRIPT, tmp_path, kind, env=environ, cwd=tmp_path, timeout_s=580)
    ours, protected, *told = (
        json.loads(line) for line in said.splitlines() if line.startswith("{")
    )
    assert "/site-packages/spark_dl/" in ours["package"]
    assert protected["authenticates"]
    assert protected["encrypts"] == (kind == "crypto")
    assert protected.get("tls", []) == [True, True] * (kind == "tls")
    assert told == [{"backend": name, "rows": 80} for name in ("barrier", "tensorflowonspark")]

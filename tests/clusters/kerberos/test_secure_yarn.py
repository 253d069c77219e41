"""YARN behind Kerberos: from a table to predictions, by a training that outlives its tokens."""

from __future__ import annotations

import json

import pytest
from clusters.flow import ON_YARN, submit_flow
from clusters.kerberos.conftest import LIFE_MS
from clusters.kerberos.kdc import REALM

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(1800)]

#: No token that the application began with is good for anything when the training saves its state.
SECONDS = 1.5 * LIFE_MS / 1000


def test_a_training_outlives_the_tokens_that_it_began_with(secure_hadoop, kdc, alice, tmp_path):
    where = " ".join(kdc.java_options)
    settings = ON_YARN | {
        # the user's own, so that Spark can get new tokens
        "spark.kerberos.principal": f"alice@{REALM}",
        "spark.kerberos.keytab": str(alice),
        # in place of /etc/krb5.conf
        "spark.driver.extraJavaOptions": where,
        "spark.executor.extraJavaOptions": where,
        "spark.yarn.am.extraJavaOptions": where,
        "spark.executorEnv.JAVA_TOOL_OPTIONS": where,
    }
    environ = {**secure_hadoop.environ, **kdc.environ, "JAVA_TOOL_OPTIONS": where}
    root = f"{secure_hadoop.uri}/user/alice/flow"
    told = submit_flow(tmp_path, root, "auto", f"{SECONDS:g}", settings=settings, environ=environ)
    assert all("/site-packages/spark_dl/" in path for path in told["packages"])
    assert told["backend"] == "tensorflowonspark"
    assert told["rows"] == 200
    kdc.log_in("alice", alice)
    status = json.loads(secure_hadoop.fs("-cat", f"{told['run']}/status.json", environ=kdc.environ))
    names = secure_hadoop.fs("-ls", "-C", "-R", told["run"], environ=kdc.environ)
    kdc.log_out()
    assert status["status"] == "succeeded"
    for part in ("metrics.jsonl", "tfevents", "checkpoint.json", "model/1/model.json"):
        assert part in names

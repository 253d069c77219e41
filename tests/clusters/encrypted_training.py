"""All steps with Spark's own traffic authenticated and encrypted.

``encrypted_training.py FOLDER crypto|tls``; by TLS with the store `keys` of the folder, whose
password is the variable STORE_PASSWORD.
"""

import json
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

import spark_dl
from spark_dl.session import embedded_session


def model_fn(spec, params):
    import keras

    found = [name for name in os.environ if name.startswith("_SPARK") or "SECRET" in name]
    if found or params["secret"] in "".join(os.environ.values()):
        message = f"secrets of Spark's reach the user's code: {found}"
        raise ValueError(message)
    inputs = keras.Input((), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Reshape((1,))(inputs)))
    model.compile("sgd", "mse")
    return model


def settings(kind, folder, secret):
    common = {
        "spark.authenticate": "true",
        "spark.authenticate.secret": secret,
        "spark.io.encryption.enabled": "true",
    }
    if kind == "crypto":
        return common | {"spark.network.crypto.enabled": "true"}
    return common | {
        "spark.ui.enabled": "true",
        "spark.ui.port": "0",
        "spark.ssl.enabled": "true",
        "spark.ssl.rpc.enabled": "true",
        "spark.ssl.keyStore": f"{folder}/keys",
        "spark.ssl.keyStorePassword": secret,
        "spark.ssl.keyPassword": secret,
        "spark.ssl.trustStore": f"{folder}/keys",
        "spark.ssl.trustStorePassword": secret,
    }


def protection(spark, kind):
    """Say what Spark holds to be on; by TLS, what driver and pages answer to a stranger's hello."""
    manager = spark.sparkContext._jvm.org.apache.spark.SparkEnv.get().securityManager()
    told = {
        "authenticates": manager.isAuthenticationEnabled(),
        "encrypts": manager.isEncryptionEnabled(),
    }
    if kind == "tls":
        pages = urlsplit(spark.sparkContext.uiWebUrl)
        port = int(spark.sparkContext.getConf().get("spark.driver.port"))
        told["tls"] = [speaks_tls("127.0.0.1", port), speaks_tls(pages.hostname, pages.port)]
    return told


def speaks_tls(host, port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it signed its own
    with (
        socket.create_connection((host, port), timeout=60) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return secure.version().startswith("TLS")


def main(folder, kind):
    print(json.dumps({"package": spark_dl.__file__}), flush=True)
    secret = os.environ.pop("STORE_PASSWORD")
    conf = settings(kind, folder, secret)
    with embedded_session(conf=conf) as spark:
        print(json.dumps(protection(spark, kind)), flush=True)
        frame = spark.range(80).selectExpr("cast(id as float) as x", "cast(id * 2 as float) as y")
        dataset = spark_dl.prepare(
            frame, features=["x"], label="y", path=f"{folder}/dataset", splits={"train": 1.0}
        )
        for backend in ("barrier", "tensorflowonspark"):
            run = spark_dl.train(
                model_fn,
                dataset,
                params={"secret": secret[:-1]},
                num_workers=2,
                global_batch_size=20,
                runs=f"{folder}/runs",
                run_id=backend,
                backend=backend,
                spark=spark,
            )
            rows = spark_dl.predict(frame, run.model_path).count()
            print(json.dumps({"backend": backend, "rows": rows}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

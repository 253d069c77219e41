"""All steps with Spark's own traffic authenticated and encrypted.

``encrypted_training.py FOLDER crypto|tls``; by TLS with the store `keys` of the folder, whose
password is the variable STORE_PASSWORD.
"""

import json
import os
import sys

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
        "spark.ssl.enabled": "true",
        "spark.ssl.rpc.enabled": "true",
        "spark.ssl.keyStore": f"{folder}/keys",
        "spark.ssl.keyStorePassword": secret,
        "spark.ssl.keyPassword": secret,
        "spark.ssl.trustStore": f"{folder}/keys",
        "spark.ssl.trustStorePassword": secret,
    }


def main(folder, kind):
    print(json.dumps({"package": spark_dl.__file__}), flush=True)
    secret = os.environ.pop("STORE_PASSWORD")
    conf = settings(kind, folder, secret)
    with embedded_session(conf=conf) as spark:
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

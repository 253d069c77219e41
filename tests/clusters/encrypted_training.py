"""All steps with Spark's own traffic authenticated and encrypted, in a folder that is given."""

import json
import os
import secrets
import sys

import spark_dl
from spark_dl.session import embedded_session


def model_fn(spec, params):
    import keras

    found = {"_SPARK_AUTH_SECRET", "PYTHON_WORKER_FACTORY_SECRET"} & set(os.environ)
    if found or params["secret"] in "".join(os.environ.values()):
        message = f"secrets of Spark's reach the user's code: {found}"
        raise ValueError(message)
    inputs = keras.Input((), name="x")
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Reshape((1,))(inputs)))
    model.compile("sgd", "mse")
    return model


def main(folder):
    print(json.dumps({"package": spark_dl.__file__}), flush=True)
    secret = secrets.token_hex(16)
    conf = {
        "spark.authenticate": "true",
        "spark.authenticate.secret": secret,
        "spark.network.crypto.enabled": "true",
        "spark.io.encryption.enabled": "true",
    }
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
    main(sys.argv[1])

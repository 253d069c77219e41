# Databricks notebook source
# MAGIC %md
# MAGIC # Train from a Delta table
# MAGIC As a notebook or as a job's task: the widgets are then its parameters. The version of the table is pinned, and a
# MAGIC repaired task goes on with the same run where its newest checkpoint was taken.

# COMMAND ----------

# MAGIC %pip install "spark-dl[tensorflow,tensorboard]"

# COMMAND ----------

dbutils.library.restartPython()

# COMMAND ----------

dbutils.widgets.text("table", "main.default.visits", "Delta table")
dbutils.widgets.text("features", "pages,minutes,referrals", "feature columns")
dbutils.widgets.text("label", "bought", "label column")
dbutils.widgets.text("id", "visit", "id column")
dbutils.widgets.text("folder", "/Volumes/main/default/spark_dl/visits", "folder, in a volume")
dbutils.widgets.text("run_id", "", "run: {{job.run_id}} in a job, empty for a new one")
dbutils.widgets.text("workers", "2", "workers")
dbutils.widgets.text("epochs", "5", "epochs")

told = dbutils.widgets.getAll()
folder = told["folder"]

# COMMAND ----------

# MAGIC %md
# MAGIC ## The table, at one version
# MAGIC Reading it again at that version gives the same rows, whatever is written meanwhile.

# COMMAND ----------

version = spark.sql(f"DESCRIBE HISTORY {told['table']} LIMIT 1").first()["version"]
rows = spark.read.option("versionAsOf", version).table(told["table"])
print(f"{told['table']} at version {version}")

# COMMAND ----------

import spark_dl

dataset = spark_dl.prepare(
    rows,
    features=told["features"].split(","),
    label=told["label"],
    id=told["id"],
    path=f"{folder}/dataset",
    seed=7,
)

# COMMAND ----------


def model_fn(spec, params):
    import keras

    inputs = {entry.name: keras.Input(entry.shape, name=entry.name) for entry in spec.features}
    columns = [keras.layers.Flatten()(keras.layers.Reshape((-1,))(x)) for x in inputs.values()]
    hidden = keras.layers.Dense(params["width"], activation="relu")(keras.layers.Concatenate()(columns))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="score")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


run = spark_dl.train(
    model_fn,
    dataset,
    params={"width": 16},
    epochs=int(told["epochs"]),
    num_workers=int(told["workers"]),
    global_batch_size=64,
    runs=f"{folder}/runs",
    run_id=f"job-{told['run_id']}" if told["run_id"] else None,
    spark=spark,
)

# COMMAND ----------

display(spark.createDataFrame([(k, float(v)) for k, v in run.metrics.items()], "metric string, value double"))

# COMMAND ----------

# MAGIC %md
# MAGIC The next task of a job finds the model as `{{tasks.train.values.model}}`.

# COMMAND ----------

dbutils.jobs.taskValues.set(key="model", value=run.model_path)
dbutils.jobs.taskValues.set(key="run_id", value=run.run_id)
dbutils.notebook.exit(run.model_path)

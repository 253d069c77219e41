# Databricks notebook source
# MAGIC %md
# MAGIC # spark-dl in ten minutes
# MAGIC A table of invented visits to a shop becomes TFRecord shards, a Keras model is trained on the executors, and the
# MAGIC table is scored. Needs: a volume that you may write to, and as many free task slots as workers.

# COMMAND ----------

# MAGIC %pip install "spark-dl[tensorflow,tensorboard]"

# COMMAND ----------

dbutils.library.restartPython()

# COMMAND ----------

dbutils.widgets.text("folder", "/Volumes/main/default/spark_dl/quick_start", "folder, in a volume")
dbutils.widgets.text("workers", "2", "workers")
dbutils.widgets.text("epochs", "5", "epochs")

folder = dbutils.widgets.get("folder")
workers = int(dbutils.widgets.get("workers"))
epochs = int(dbutils.widgets.get("epochs"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## A table
# MAGIC Who stays long on few pages, or was sent by others, buys.

# COMMAND ----------

visits = spark.range(4000).selectExpr(
    "id as visit",
    "cast(1 + id % 11 as float) as pages",
    "cast((id * 7) % 23 as float) as minutes",
    "cast(id % 4 as float) as referrals",
    "cast((id * 7) % 23 > 8 + id % 11 - 3 * (id % 4) as float) as bought",
)
display(visits)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Table → shards
# MAGIC Rows are checked, counted and split by a hash of `visit`. The same rows again are reused, not rewritten.

# COMMAND ----------

import spark_dl

dataset = spark_dl.prepare(
    visits,
    features=["pages", "minutes", "referrals"],
    label="bought",
    id="visit",
    path=f"{folder}/dataset",
    seed=7,
)
display(spark.createDataFrame(list(dataset.manifest.totals.items()), "split string, rows long"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Shards → model
# MAGIC `model_fn` runs on the executors and returns a compiled model. Its name and content are yours.

# COMMAND ----------


def model_fn(spec, params):
    import keras

    inputs = {entry.name: keras.Input(entry.shape, name=entry.name) for entry in spec.features}
    columns = [keras.layers.Reshape((1,))(tensor) for tensor in inputs.values()]
    hidden = keras.layers.Concatenate()(columns)
    for _ in range(2):
        hidden = keras.layers.Dense(params["width"], activation="relu")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="buys")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


run = spark_dl.train(
    model_fn,
    dataset,
    params={"width": 16},
    epochs=epochs,
    num_workers=workers,
    global_batch_size=64,
    runs=f"{folder}/runs",
    spark=spark,
)

# COMMAND ----------

history = [
    (epoch, name, float(value))
    for name, values in run.history.items()
    for epoch, value in enumerate(values, 1)
]
display(spark.createDataFrame(history, "epoch int, metric string, value double"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Model and table → predictions

# COMMAND ----------

scored = spark_dl.predict(visits, run.model_path)
display(scored.select("visit", "bought", "prediction"))

# COMMAND ----------

dbutils.notebook.exit(run.run_id)

# Databricks notebook source
# MAGIC %md
# MAGIC # Score a table on a schedule
# MAGIC Each version of the table is scored once by a model: run it as often as you like, a repeated run adds no row.

# COMMAND ----------

# MAGIC %pip install "spark-dl[tensorflow]"

# COMMAND ----------

dbutils.library.restartPython()

# COMMAND ----------

dbutils.widgets.text("table", "main.default.visits", "Delta table")
dbutils.widgets.text("model", "", "folder of the exported model: {{tasks.train.values.model}} in a job")
dbutils.widgets.text("output", "main.default.visits_scored", "table of predictions")

table = dbutils.widgets.get("table")
model = dbutils.widgets.get("model")
output = dbutils.widgets.get("output")

# COMMAND ----------

version = spark.sql(f"DESCRIBE HISTORY {table} LIMIT 1").first()["version"]
rows = spark.read.option("versionAsOf", version).table(table)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Score it
# MAGIC Beside the model's outputs each row gets `model_run_id`, `model_version` and `scoring_id`.

# COMMAND ----------

import spark_dl

scored = spark_dl.predict(rows, model, scoring_id=f"{table}@{version}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Write it, once
# MAGIC Delta leaves out a write whose `txnVersion` is not above the last one of its `txnAppId`: what was scored with this
# MAGIC model at this version already is not written again.

# COMMAND ----------

writer = scored.write.format("delta").mode("append")
writer = writer.option("txnAppId", f"score {table} with {model}").option("txnVersion", str(version))
writer.saveAsTable(output)

# COMMAND ----------

display(spark.table(output).groupBy("scoring_id", "model_run_id").count())

# COMMAND ----------

dbutils.notebook.exit(str(version))

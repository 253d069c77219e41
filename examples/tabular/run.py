"""Tumours, benign or malignant: a Spark ML pipeline with a Keras model, cross-validated.

    .venv/bin/python examples/tabular/run.py tabular-output

The data are the Wisconsin breast cancer measurements that scikit-learn carries: 569 rows of 30
numbers. The folder must lie on storage that driver and executors share.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pyspark.ml import Pipeline
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import StandardScaler, StringIndexer, VectorAssembler
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder
from sklearn.datasets import load_breast_cancer

from spark_dl.ml import KerasClassifier
from spark_dl.session import job_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def tumours(spark: SparkSession) -> DataFrame:
    """Return the table: an id, a text and 30 numbers."""
    data = load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names]
    rows = [
        (number, str(data.target_names[target]), *map(float, values))
        for number, (target, values) in enumerate(zip(data.target, data.data, strict=True))
    ]
    return spark.createDataFrame(rows, ["id", "diagnosis", *names])


def tune(table: DataFrame, folder: str) -> CrossValidatorModel:
    """Return the best of the pipelines that a grid describes."""
    classifier = KerasClassifier(
        modelFn="tabular_model:build",  # build(spec, params) → compiled keras.Model
        globalBatchSize=32,
        numWorkers=1,  # one task slot: as many trainings at once as there are slots
        seed=7,
        runsPath=f"{folder}/runs",
        datasetPath=f"{folder}/datasets",
    )
    numbers = [name for name, kind in table.dtypes if kind == "double"]
    pipeline = Pipeline(
        stages=[
            StringIndexer(inputCol="diagnosis", outputCol="label", stringOrderType="alphabetAsc"),
            VectorAssembler(inputCols=numbers, outputCol="numbers"),
            StandardScaler(inputCol="numbers", outputCol="features", withMean=True),
            classifier,
        ]
    )
    grid = (
        ParamGridBuilder()
        .baseOn({classifier.modelParams: {"width": 16, "dropout": 0.1}})
        .addGrid(classifier.epochs, [1, 12])
        .build()
    )
    return CrossValidator(
        estimator=pipeline,
        estimatorParamMaps=grid,
        evaluator=BinaryClassificationEvaluator(),
        numFolds=2,
        parallelism=2,
        seed=1,
    ).fit(table)


def main(folder: str) -> None:
    """Tune, save, load and score."""
    with job_session("tabular") as spark:
        here = os.path.dirname(os.path.abspath(__file__))
        spark.sparkContext.addPyFile(os.path.join(here, "tabular_model.py"))
        table = tumours(spark)
        tuned = tune(table, folder)
        print(f"area under ROC for 1 and 12 epochs: {tuned.avgMetrics}")
        tuned.write().overwrite().save(f"{folder}/tuned")
        loaded = CrossValidatorModel.load(f"{folder}/tuned")
        loaded.transform(table).select("id", "diagnosis", "probability", "prediction").show(5)


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "tabular-output"))

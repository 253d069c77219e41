"""prepare → train → infer, as one DAG for Airflow 3: copy it into your DAG folder.

Airflow's Python needs `spark-dl` and `apache-airflow-providers-apache-spark`. Which cluster: the
connection `spark_default`. What is trained: the YAML that the parameter `config` names.
"""

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from spark_dl.airflow import SparkDLOperator

# On a cluster, what conf/spark-defaults*.conf set goes into `conf`, or into its own defaults.
SUBMIT = {
    "conn_id": "spark_default",
    "conf": {"spark.ui.showConsoleProgress": "false"},
    "py_files": "{{ params.py_files }}",
}

with DAG(
    "spark_dl_train",
    schedule=None,  # such as "@daily"
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "config": Param(
            os.environ.get("SPARK_DL_CONFIG", "/opt/spark-dl/job.yaml"),
            type="string",
            description="the YAML, on Airflow's host",
        ),
        "py_files": Param("", type="string", description="modules to ship, with that of model.fn"),
        "epochs": Param(None, type=["null", "integer"], minimum=1, description="if not the YAML's"),
        "num_workers": Param(None, type=["null", "integer"], minimum=1),
    },
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=2),
        "config": "{{ params.config }}",
    },
    max_active_runs=1,
    doc_md=__doc__,
) as dag:
    prepare = SparkDLOperator(task_id="prepare", job="prepare", **SUBMIT)
    train = SparkDLOperator(
        task_id="train",
        job="train",
        overrides={
            "training.epochs": "{{ params.epochs or '' }}",
            "cluster.num_workers": "{{ params.num_workers or '' }}",
        },
        **SUBMIT,
    )
    infer = SparkDLOperator(
        task_id="infer",
        job="infer",
        # the model of this run of the DAG, not the newest that there is
        overrides={"infer.model": "{{ ti.xcom_pull(task_ids='train', key='run_id') }}"},
        **SUBMIT,
    )
    prepare >> train >> infer

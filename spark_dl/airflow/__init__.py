"""Airflow 3: an operator whose tasks end as the job ended.

Install ``spark-dl`` and ``apache-airflow-providers-apache-spark`` into Airflow's Python. Nothing
else of this package imports this one, and it needs Airflow only where the operator is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spark_dl.airflow.outcome import Outcome, Verdict, judge, task_run_id

if TYPE_CHECKING:
    from spark_dl.airflow.operator import SparkDLOperator

__all__ = ["Outcome", "SparkDLOperator", "Verdict", "judge", "task_run_id"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (the one way to load a name lazily)
    if name == "SparkDLOperator":
        from spark_dl.airflow.operator import SparkDLOperator

        return SparkDLOperator
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

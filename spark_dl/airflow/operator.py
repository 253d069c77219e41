"""The operator: spark-submit as Airflow's own runs it, its end judged by ``status.json``."""

from __future__ import annotations

import getpass
import json
import os
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.exceptions import AirflowException, AirflowFailException
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Connection

from spark_dl.airflow.outcome import Outcome, exit_code_in, judge, task_run_id
from spark_dl.cli.submit.entry import job as entry
from spark_dl.config import load_config
from spark_dl.errors import SparkDLError
from spark_dl.runs import read_status
from spark_dl.storage import JobState, RunPaths, Storage, job_run_id
from spark_dl.storage.status import now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from spark_dl.config import JobName
    from spark_dl.storage import JobStatus

__all__ = ["SparkDLOperator"]

#: How long a training gets to obey the request to stop; Airflow kills the task after 60 s.
_STOP_S: Final = 40.0
_LOOK_S: Final = 0.5


class SparkDLOperator(SparkSubmitOperator):  # type: ignore[misc] # Airflow is not here when checked
    """One job of a config, submitted to Spark.

    A failure that trying again may help (exit code 75) is retried as `retries` says, any other
    ends the task for good. All tries of a task, also after it was cleared, share one run: a
    training goes on from its newest checkpoint. In XCom are ``run_id``, ``metrics`` and, as
    ``return_value``, both with ``job``, ``status``, ``attempt`` and ``path``.

    Args:
        job: ``prepare``, ``train`` or ``infer``.
        config: the YAML, on this host; it is read here too, to find `runs` (templated).
        overrides: values that are set in it, as ``--set`` does, such as
            ``{"training.epochs": "{{ params.epochs }}"}``; those that are empty are left out
            (templated).
        run_id: of the run (templated); by default made from the ids of the DAG and of its run.
        durable: as in `SparkSubmitOperator`, but off: on YARN in cluster mode it would need
            `yarn_track_via_rm_api`.
        **submit: what `SparkSubmitOperator` takes: `conn_id`, `conf`, `py_files`, `jars` and so on.

    Example:
        >>> SparkDLOperator(task_id="train", job="train", config="job.yaml")  # doctest: +SKIP
    """

    template_fields: ClassVar[Sequence[str]] = (
        *SparkSubmitOperator.template_fields,
        "config",
        "overrides",
        "run_id",
    )

    def __init__(
        self,
        *,
        job: JobName,
        config: str,
        overrides: Mapping[str, Any] | None = None,
        run_id: str = "",
        durable: bool = False,
        **submit: Any,  # noqa: ANN401 (Airflow's own settings, checked there)
    ) -> None:
        """Keep the settings; nothing is read before the task runs."""
        given = {"application": entry.__file__, "name": f"spark-dl {job}", **submit}
        super().__init__(**given)
        self.durable = durable
        self.job = job
        self.config = config
        self.overrides = dict(overrides or {})
        self.run_id = run_id
        self._shipped: str | None = self.files
        self._paths: RunPaths | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the job, wait for it and end as it did.

        Raises:
            AirflowFailException: trying again would not help.
            AirflowException: it may.
        """
        self.run_id = self.run_id or task_run_id(context["dag"].dag_id, context["run_id"])
        paths = self._paths = self._prepared()
        before = _status(paths)
        failure: Exception | None = None
        try:
            super().execute(context)
        except (AirflowException, RuntimeError) as error:
            failure = error
        after = _status(paths)
        code = exit_code_in(str(failure)) if failure else 0
        verdict = judge(before, after, is_ok=failure is None, exit_code=code)
        if verdict.outcome is Outcome.FAIL:
            raise AirflowFailException(verdict.reason) from failure
        if verdict.outcome is Outcome.RETRY:
            raise AirflowException(verdict.reason) from failure
        self.log.info("%s", verdict.reason)
        return self._told(context, paths, after)

    def _prepared(self) -> RunPaths | None:
        """Complete the arguments and return where the job keeps its record.

        Raises:
            AirflowFailException: the config is wrong: no try can help.
        """
        settings = [
            f"{key}={value}" for key, value in self.overrides.items() if value not in (None, "")
        ]
        settings.append(f"run_id={json.dumps(self.run_id)}")
        try:
            config = load_config(self.config, settings)
            config.check_for(self.job)
            paths = config.runs and RunPaths(
                runs=config.runs, run_id=job_run_id(self.job, config.run_id)
            )
        except SparkDLError as error:
            raise AirflowFailException(str(error)) from error
        read = os.path.abspath(self.config)
        if self._driver_is_elsewhere():
            self.files = ",".join(filter(None, [self._shipped, read]))
            read = os.path.basename(read)
        sets = [word for setting in settings for word in ("--set", setting)]
        self.application_args = [self.job, "--config", read, *sets]
        return paths or None

    def _driver_is_elsewhere(self) -> bool:
        mode = self._deploy_mode or Connection.get(self._conn_id).extra_dejson.get("deploy-mode")
        return bool(mode == "cluster")

    def _told(
        self, context: Context, paths: RunPaths | None, status: JobStatus | None
    ) -> dict[str, Any]:
        metrics = dict(status.metrics) if status else {}
        context["ti"].xcom_push(key="run_id", value=self.run_id)
        context["ti"].xcom_push(key="metrics", value=metrics)
        return {
            "job": self.job,
            "run_id": self.run_id,
            "status": str(status.status) if status else str(JobState.SUCCEEDED),
            "attempt": status.attempt if status else 1,
            "metrics": metrics,
            "path": paths.root if paths else None,
        }

    def on_kill(self) -> None:
        """Ask a training to stop, so that it leaves a checkpoint; then end what still runs."""
        if self.job == "train" and self._paths is not None:
            try:
                self._stop_training(self._paths)
            except Exception:
                self.log.exception("the run could not be asked to stop")
        super().on_kill()

    def _stop_training(self, paths: RunPaths) -> None:
        request = {"time": now(), "by": f"Airflow ({getpass.getuser()})"}
        Storage(paths.root).write_atomic(paths.stop, json.dumps(request))
        end = time.monotonic() + _STOP_S
        while time.monotonic() < end:
            status = _status(paths)
            if status is None or status.ended is not None:
                return
            time.sleep(_LOOK_S)


def _status(paths: RunPaths | None) -> JobStatus | None:
    """Return what the record says; one that cannot be read says nothing, the exit code does."""
    if paths is None:
        return None
    try:
        return read_status(paths)
    except (SparkDLError, OSError):
        return None

"""Airflow 3 in an environment of its own, with the wheel; its database is a SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark
from clusters.environment import build_wheel, cache_lock, digest, made, run
from clusters.guide import shell, user_environ

if TYPE_CHECKING:
    from collections.abc import Mapping

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
PROVIDER = "apache-airflow-providers-apache-spark"
DEADLINE_S = 1200


def airflow_programs() -> Path:
    """Install Airflow and the wheel where the cache has them not; return the folder of programs."""
    with cache_lock("airflow") as folder:
        programs = folder / "venv" / "bin"
        wheel = build_wheel(folder)
        pins = digest(CONSTRAINTS.read_bytes(), sys.version.encode())
        uv = (
            str(programs / "uv"),
            "pip",
            "install",
            "--quiet",
            "--python",
            str(programs / "python"),
        )
        if not made(folder / "pins", pins):
            run(sys.executable, "-m", "venv", "--clear", str(folder / "venv"))
            run(str(programs / "pip"), "install", "--quiet", "uv")  # pip alone takes minutes
            run(*uv, "--constraint", str(CONSTRAINTS), "apache-airflow", PROVIDER, str(wheel))
            (folder / "pins").write_text(pins)
        run(*uv, "--no-deps", "--reinstall-package", "spark-dl", str(wheel))
        return programs


class Airflow:
    """An Airflow with a database and a folder of DAGs.

    Args:
        programs: where Airflow is installed.
        home: folder of its database.
    """

    def __init__(self, programs: Path, home: Path) -> None:
        """Make the database."""
        self.dags = home / "dags"
        self.dags.mkdir()
        self._database = home / "airflow.db"
        spark_home = os.path.dirname(pyspark.__file__)
        settings = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(
                {"conn_type": "spark", "host": "local-cluster[2,1,1024]"}
            ),
            "SPARK_HOME": spark_home,
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        # Airflow's environment has a pyspark without Spark: the real one comes first
        self.environ = user_environ([], settings)
        paths = [os.path.join(spark_home, "bin"), str(programs), self.environ["PATH"]]
        self.environ["PATH"] = os.pathsep.join(paths)
        self._programs = programs
        done = self._run("db", "migrate")
        assert done.returncode == 0, done.stderr[-4000:]

    def _run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._programs / "airflow"), *words],
            env=self.environ | environ,
            cwd=self.dags.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def shell(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Run commands as a user on Airflow's host, who has said nothing of Spark but its home."""
        path = os.pathsep.join([str(self._programs), os.environ["PATH"]])
        environ = {**self.environ, "PATH": path}
        del environ["AIRFLOW_CONN_SPARK_DEFAULT"]
        return shell(commands, folder=self.dags.parent, environ=environ, timeout_s=DEADLINE_S)

    def test(
        self,
        dag: str,
        *,
        python: str,
        conf: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a DAG once, in this process tree, as ``airflow dags test`` does."""
        words = ("--conf", json.dumps(conf)) if conf else ()
        return self._run("dags", "test", *words, dag, PYSPARK_PYTHON=python, **(environ or {}))

    def tasks(self, dag: str) -> dict[str, tuple[str, int]]:
        """Return state and number of tries of each task of a DAG's last run."""
        rows = self._query(
            "select task_id, state, try_number from task_instance where dag_id = ? and run_id = ?",
            dag,
        )
        return {task: (state, tries) for task, state, tries in rows}

    def xcom(self, dag: str, task: str) -> dict[str, object]:
        """Return what a task of a DAG's last run left in XCom."""
        rows = self._query(
            "select task_id, key, value from xcom where dag_id = ? and run_id = ?", dag
        )
        return {key: json.loads(value) for name, key, value in rows if name == task}

    def _query(self, query: str, dag: str) -> list[tuple]:
        with closing(sqlite3.connect(self._database)) as database:
            last = "select run_id from dag_run where dag_id = ? order by id desc limit 1"
            ((run_id,),) = database.execute(last, (dag,))
            return database.execute(query, (dag, run_id)).fetchall()

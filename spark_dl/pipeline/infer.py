"""The job `infer`: table and model → predictions table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from spark_dl import __version__
from spark_dl.config import FeatureConfig, required
from spark_dl.pipeline.naming import described, short_name
from spark_dl.pipeline.records import job_record
from spark_dl.pipeline.scored import Scoring, write_scored
from spark_dl.pipeline.scoring import find_model
from spark_dl.schema import Feature
from spark_dl.shards import Manifest
from spark_dl.shards.identity import identify_rows
from spark_dl.shards.selection import rows_of_split
from spark_dl.storage import JobState

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from spark_dl.config import JobConfig
    from spark_dl.inference import ExportedModel
    from spark_dl.inference.inputs import InputColumns
    from spark_dl.tables import PinnedTable

__all__ = ["given_inputs", "rows_to_score", "run_infer", "scoring_facts"]

logger = logging.getLogger(__name__)


def run_infer(config: JobConfig, spark: SparkSession) -> dict[str, Any]:
    """Run the job `infer`: table and model → predictions table.

    Args:
        config: its sections `infer`, `table`, `dataset` (for `infer.split`), `runs` and `output`.
        spark: the session.

    Returns:
        What the job's last line says: ``status``, ``model_path``, ``scoring_id``, ``output``,
        ``rows``, and of bad rows ``bad_rows`` and ``quarantine``, the table where they are.
    """
    from spark_dl.inference import predict
    from spark_dl.tables import read_table

    config.check_for("infer")
    output = required(config.output, "output", job="infer")
    title = f"infer {short_name(output.path)}"
    with job_record("infer", config) as (job_id, record), described(spark, title):
        model = find_model(
            config.infer.model,
            spark,
            runs=required(config.runs, "runs", job="infer"),
            metric=config.infer.metric,
            allow_lambda=config.infer.allow_lambda,
        )
        table = read_table(
            spark, required(config.infer.table or config.table, "table", job="infer")
        )
        rows, where = rows_to_score(config, table)
        scoring_id = output.scoring_id or _scoring_id(
            rows, model, table, where=where, output=output.path
        )
        predictions = predict(
            rows,
            model,
            inputs=given_inputs(config),
            scoring_id=scoring_id,
            batch_size=config.infer.batch_size,
            on_error=config.infer.on_error,
        )
        scoring = Scoring(
            predictions=predictions,
            kept=rows.columns,
            on_error=config.infer.on_error,
            scoring_id=scoring_id,
            properties=scoring_facts(model, table, where),
        )
        written = write_scored(scoring, output)
        if record is not None:
            record.succeeded(written.metrics())
    return {
        "id": job_id,
        "status": JobState.SUCCEEDED.value,
        "model_path": model.path,
        "model_run_id": model.run_id,
        "scoring_id": scoring_id,
        "output": output.path,
        "rows": written.rows,
        "bad_rows": written.bad_rows,
        "quarantine": written.quarantine,
    }


def given_inputs(config: JobConfig) -> dict[str, InputColumns] | None:
    """Return `infer.inputs` as the library takes it."""
    given = config.infer.inputs
    if given is None:
        return None
    return {
        name: Feature(**value.model_dump()) if isinstance(value, FeatureConfig) else value
        for name, value in given.items()
    }


def rows_to_score(config: JobConfig, table: PinnedTable) -> tuple[DataFrame, str | None]:
    """Return the rows that `infer` scores, and what chose them."""
    split = config.infer.split
    if split is None:
        return table.df, table.where
    manifest = Manifest.read(required(config.dataset, "dataset", job="infer").path)
    # datasets differ in which rows their splits of one name hold
    chosen = f"split = {split} of {manifest.fingerprint}"
    where = f"({table.where}) and {chosen}" if table.where else chosen
    return rows_of_split(table.df, manifest, split), where


def _scoring_id(
    rows: DataFrame, model: ExportedModel, table: PinnedTable, *, where: str | None, output: str
) -> str:
    """Return an id that is the same for the same rows: without versions, their content tells."""
    from spark_dl.inference import default_scoring_id, random_scoring_id

    version = identify_rows(rows) if table.version is None else table.version
    if version is None:
        scoring_id = random_scoring_id()
        logger.warning(
            "%s has no versions and nothing tells its rows apart from other ones: this scoring is "
            "a new one, %s; set `output.scoring_id` for reruns that add nothing",
            table.table,
            scoring_id,
        )
        return scoring_id
    return default_scoring_id(
        model.checksum, table=table.table, version=version, where=where, output=output
    )


def scoring_facts(
    model: ExportedModel, table: PinnedTable | None, where: str | None
) -> dict[str, str]:
    """Return what a predictions table says about where its rows came from.

    Args:
        model: the model.
        table: the table that was scored; `None` for a DataFrame of unknown origin.
        where: what chose its rows.
    """
    version = table.version if table else None
    facts = {
        "model_path": model.path,
        "model_run_id": model.run_id or "",
        "model_version": "" if model.version is None else str(model.version),
        "model_checksum": model.checksum,
        "dataset_fingerprint": model.fingerprint,
        "feature_spec": model.spec.model_dump_json() if model.spec.entries else "",
        "source": table.table if table else "",
        "source_version": "" if version is None else str(version),
        "source_where": where or "",
        "version": __version__,
    }
    return {f"spark_dl.{name}": value for name, value in facts.items()}

"""Write predictions: the good rows to their table, the bad ones where the user wants them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spark_dl.inference import LINEAGE_COLUMNS, task_error
from spark_dl.schema.derive import quoted
from spark_dl.storage import spark_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame

    from spark_dl.config import OutputConfig
    from spark_dl.tables import WrittenTable

__all__ = ["REASON", "Scored", "Scoring", "write_scored"]

logger = logging.getLogger(__name__)

#: Column of the reason, in the quarantine and beside null predictions.
REASON: Final = "prediction_error"


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is to be written.

    Attributes:
        predictions: what `predict` returned.
        kept: the columns of the table that was scored.
        on_error: what `predict` was told.
        scoring_id: name of the scoring.
        properties: facts about it, for the tables.
    """

    predictions: DataFrame
    kept: Sequence[str]
    on_error: str
    scoring_id: str
    properties: Mapping[str, str]

    def write(self, df: DataFrame, output: OutputConfig) -> WrittenTable:
        """Write some of the rows under the scoring's name."""
        from spark_dl.tables import write_table

        return write_table(df, output, scoring_id=self.scoring_id, properties=self.properties)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What became of a scoring.

    Attributes:
        rows: rows in the table of predictions; `None` when its history no longer says.
        bad_rows: rows that the model could not take; `None` where they would have ended the job.
        quarantine: the table of bad rows, if there are any in one.
    """

    rows: int | None
    bad_rows: int | None = None
    quarantine: str | None = None

    def metrics(self) -> dict[str, float]:
        """Return the counts for `status.json`."""
        counts = {"rows": self.rows, "bad_rows": self.bad_rows}
        return {name: float(count) for name, count in counts.items() if count is not None}


def write_scored(scoring: Scoring, output: OutputConfig) -> Scored:
    """Write predictions once for each scoring id.

    Args:
        scoring: the predictions. Told to quarantine, their bad rows go to ``output.bad_rows``,
            before the good ones go to their table.
        output: the table.

    Raises:
        DataError: a bad row, if it is to end the job; nothing was written.
        TableError: a table cannot be written.
    """
    try:
        if scoring.on_error == "quarantine":
            return _apart(scoring, output)
        if scoring.on_error == "null":
            return _together(scoring, output)
        return Scored(rows=scoring.write(scoring.predictions, output).rows)
    except Exception as error:
        # a row that the model cannot take is met by a task; Spark wraps what it says
        if (ours := task_error(error)) is not None:
            raise ours from error
        raise


def _together(scoring: Scoring, output: OutputConfig) -> Scored:
    """Keep bad rows, with null predictions and a reason; the table itself says how many."""
    from pyspark.sql import functions as sf

    written = scoring.write(scoring.predictions, output)
    spark = scoring.predictions.sparkSession
    table = spark.read.format(output.format).load(spark_uri(written.path))
    mine = table.where(sf.col("scoring_id") == scoring.scoring_id)
    bad = int(mine.where(sf.col(REASON).isNotNull()).count())
    _warn(bad, written.rows, output.path)
    return Scored(rows=written.rows, bad_rows=bad)


def _apart(scoring: Scoring, output: OutputConfig) -> Scored:
    """Write the bad rows into a table of their own, then the good ones; score each once."""
    from pyspark import StorageLevel

    from spark_dl.tables import written_before

    spark = scoring.predictions.sparkSession
    done = written_before(spark, output, scoring.scoring_id)
    if done is not None:
        there = written_before(spark, output.bad_rows, scoring.scoring_id)
        return Scored(
            rows=done.rows,
            bad_rows=there.rows if there else 0,
            quarantine=there.path if there else None,
        )
    scored = scoring.predictions.persist(StorageLevel.DISK_ONLY)
    try:
        bad = scored.where(f"{REASON} IS NOT NULL")
        count = int(bad.count())  # numpy's, of clients of Connect 3.5
        if count:
            names = [*scoring.kept, REASON, *LINEAGE_COLUMNS]
            scoring.write(bad.select(*map(quoted, names)), output.bad_rows)
            _warn(count, None, output.bad_rows.path)
        good = scored.where(f"{REASON} IS NULL").drop(REASON)
        written = scoring.write(good, output)
    finally:
        scored.unpersist()
    return Scored(
        rows=written.rows,
        bad_rows=count,
        quarantine=output.bad_rows.path if count else None,
    )


def _warn(bad: int, rows: int | None, path: str) -> None:
    if bad:
        of = "" if rows is None else f" of {rows}"
        logger.warning("%d%s rows could not be scored; %s says why (%s)", bad, of, path, REASON)

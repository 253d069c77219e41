"""Score a stream into a Delta table, exactly once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from spark_dl.config import OutputConfig, build
from spark_dl.errors import ConfigError
from spark_dl.pipeline.infer import scoring_facts
from spark_dl.pipeline.scored import Scoring, write_scored
from spark_dl.pipeline.scoring import find_model
from spark_dl.storage import normalise, spark_uri

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.query import StreamingQuery

    from spark_dl.inference.predictor import OnError
    from spark_dl.pipeline.scoring import AnyModel

__all__ = ["score_stream"]

logger = logging.getLogger(__name__)


def score_stream(  # noqa: PLR0913 - the façade: one keyword a setting
    df: DataFrame,
    model: AnyModel,
    *,
    output: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    name: str,
    runs: str | os.PathLike[str] = "runs",
    metric: str | None = None,
    on_error: OnError = "fail",
    quarantine: str | os.PathLike[str] | None = None,
    trigger: Mapping[str, Any] | None = None,
    **settings: Any,  # noqa: ANN401 - those of `inference.predict`, which documents them
) -> StreamingQuery:
    """Start a query that scores the rows of a stream and appends them to a Delta table.

    Each micro-batch is one commit, known by `name` and its number: one that was written just before
    the query died is not written again when it is restarted with the same checkpoint.

    Args:
        df: a streaming DataFrame.
        model: as for `predict`; it is opened once, when the query starts.
        output: folder of the Delta table.
        checkpoint: folder where Spark keeps the stream's position; one for each query.
        name: the scoring's name: batch ``n`` has the scoring id ``<name>-<n>``. Another query, or
            the same rows scored anew from an empty checkpoint, needs another name.
        runs: folder of run directories.
        metric: what ``best`` goes by.
        on_error: what a bad row does: ``fail`` ends the query, ``null`` keeps it with a reason,
            ``quarantine`` moves it to the table `quarantine`.
        quarantine: folder of the table of bad rows; by default `output` with ``_quarantine``.
        trigger: when a batch starts, as `DataStreamWriter.trigger` takes it, such as
            ``{"availableNow": True}``; by default as soon as the one before is done.
        settings: ``inputs``, ``batch_size`` and ``allow_lambda``, see `predict`.

    Returns:
        The running query.

    Raises:
        ModelError: there is no such model, or the stream does not fit it.
        ConfigError: `df` is no stream, or a setting is wrong.

    Example:
        >>> query = spark_dl.score_stream(
        ...     spark.readStream.table("events"), run, output="/data/scored",
        ...     checkpoint="/data/scored_position", name="events-1",
        ... )  # doctest: +SKIP
    """
    if not df.isStreaming:
        msg = "score_stream() takes a streaming DataFrame; score a batch one with predict()"
        raise ConfigError(msg)
    allow_lambda = bool(settings.pop("allow_lambda", False))
    found = find_model(model, df.sparkSession, runs=runs, metric=metric, allow_lambda=allow_lambda)
    table = build(
        OutputConfig,
        {
            "path": normalise(output),
            **({"quarantine": normalise(quarantine)} if quarantine is not None else {}),
        },
        where="score_stream()",
    )
    facts = scoring_facts(found, None, None)
    _check(df, found, on_error, settings)

    def write(batch: DataFrame, number: int) -> None:
        from spark_dl.inference import predict

        scoring_id = f"{name}-{number}"
        predictions = predict(batch, found, scoring_id=scoring_id, on_error=on_error, **settings)
        scoring = Scoring(
            predictions=predictions,
            kept=batch.columns,
            on_error=on_error,
            scoring_id=scoring_id,
            properties=facts,
        )
        written = write_scored(scoring, table)
        logger.info("batch %d of %s: %s rows", number, name, written.rows)

    writer = df.writeStream.queryName(name).option(
        "checkpointLocation", spark_uri(normalise(checkpoint))
    )
    if trigger is not None:
        writer = writer.trigger(**trigger)
    return writer.foreachBatch(write).start()


def _check(df: DataFrame, model: Any, on_error: str, settings: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Let a wrong setting or column fail now and not in the first batch."""
    from spark_dl.inference import predict

    reserved = {"scoring_id", "prefix", "as_struct"} & set(settings)
    if reserved:
        msg = (
            f"score_stream() does not take {', '.join(sorted(reserved))}: it names the rows itself"
        )
        raise ConfigError(msg)
    predict(df, model, on_error=on_error, **settings)  # type: ignore[arg-type]

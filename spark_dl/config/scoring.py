"""The sections of the YAML that tell what is scored and where the predictions go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from spark_dl.config.base import Flag, PositiveInt, Section, Text
from spark_dl.config.sections import FeatureConfig, TableConfig, TableFormat

if TYPE_CHECKING:
    from typing import Self

__all__ = ["InferConfig", "OutputConfig"]


def _texts(values: Any) -> Any:  # noqa: ANN401 (pydantic hands over what the user wrote)
    return [values] if isinstance(values, str) else values


def _null(value: Any) -> Any:  # noqa: ANN401 (pydantic hands over what the user wrote)
    """YAML reads ``null`` as nothing; here it is a word."""
    return "null" if value is None else value


OnError = Annotated[
    Literal["fail", "null", "quarantine"],
    BeforeValidator(_null, json_schema_input_type=Literal["fail", "null", "quarantine"] | None),
]
Names = Annotated[tuple[Text, ...], BeforeValidator(_texts, json_schema_input_type=str | list[str])]


class InferConfig(Section):
    """``infer``: which model scores which rows.

    Attributes:
        model: ``latest`` (the newest finished run), ``best`` (by `metric`), a run id, or the path
            of an exported version, of any SavedModel or of a ``.keras`` file.
        metric: the metric that ``best`` compares, such as ``val_loss``.
        table: the rows to score; by default those of the top-level ``table``.
        split: score only this split of that table, told apart as `prepare` did; by default all
            rows.
        inputs: input name to column, to ``{column: …, cast: …}``, or to a list of scalar columns
            that make a vector; by default the columns that the model was trained on.
        batch_size: rows that the model gets at once; by default 4096, where light models stop
            gaining, or fewer where a row's inputs are large.
        on_error: what a row does that the model cannot take: ``fail`` (default: nothing is lost in
            silence) ends the job, ``null`` keeps it with null predictions and a reason,
            ``quarantine`` moves it, with its reason, to the table ``output.quarantine``.
        allow_lambda: whether a ``.keras`` file may hold Lambda layers, which are code of whoever
            made it; off.
    """

    model: Text = "latest"
    metric: Text | None = None
    table: TableConfig | None = None
    split: Text | None = None
    inputs: dict[str, Text | FeatureConfig | tuple[Text, ...]] | None = None
    batch_size: PositiveInt | None = None
    on_error: OnError = "fail"
    allow_lambda: Flag = False

    @model_validator(mode="after")
    def _best_needs_metric(self) -> Self:
        if self.model == "best" and self.metric is None:
            msg = "model: best needs a metric to compare by, such as metric: val_loss"
            raise ValueError(msg)
        return self


class OutputConfig(Section):
    """``output``: the table of predictions.

    Attributes:
        path: its folder.
        format: its format. Delta by default: only there a rerun of the same `scoring_id` can add
            nothing.
        mode: ``append`` (default: never destroys anything), ``overwrite``, or ``merge``: rows of a
            known key replace the one that is there, others are added.
        merge_on: the columns of that key; needed by ``merge``, whose table must be Delta.
        partition_by: columns by whose values the table's files are laid apart; none by default.
        quarantine: folder of the table of bad rows, with ``infer.on_error: quarantine``; by default
            `path` with ``_quarantine`` behind it.
        scoring_id: name of this scoring; by default a hash of model, table, version, filter (with
            ``infer.split``, also the dataset) and output, so that the same question is answered
            once and tomorrow's rows are scored anew. Where there are no versions (Parquet, a
            query), a hash of the rows stands for the version, which reads them once more.
    """

    path: Text
    format: TableFormat = "delta"
    mode: Literal["append", "overwrite", "merge"] = "append"
    merge_on: Names | None = None
    partition_by: Names = Field(default=())
    quarantine: Text | None = None
    scoring_id: Text | None = None

    @model_validator(mode="after")
    def _merge_needs_a_key(self) -> Self:
        if self.mode == "merge" and (not self.merge_on or self.format != "delta"):
            what = "merge_on, the columns of the key" if self.format == "delta" else "format: delta"
            msg = f"mode: merge needs {what}"
            raise ValueError(msg)
        if self.mode != "merge" and self.merge_on:
            msg = f"merge_on is for mode: merge, got mode: {self.mode}"
            raise ValueError(msg)
        return self

    @property
    def bad_rows(self) -> OutputConfig:
        """The table of quarantined rows, which only ever grows."""
        path = self.quarantine or f"{self.path.rstrip('/')}_quarantine"
        return OutputConfig(path=path, format=self.format)

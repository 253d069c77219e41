"""What identifies the rows of a table that has no versions: their content.

Driver side.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from spark_dl._jvm import brief_cause, spark_errors
from spark_dl.errors import DataError
from spark_dl.schema.derive import quoted
from spark_dl.shards.checks import Content, content_columns

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["identify_rows"]

logger = logging.getLogger(__name__)


def identify_rows(df: DataFrame) -> str | None:
    """Return a text that is equal for equal rows, whatever their order; reads all of them.

    Args:
        df: the rows.

    Returns:
        the text; `None` where Spark cannot hash the rows: a column is a map or a variant, or two
        columns have one name.

    Raises:
        DataError: the rows cannot be read.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import functions as sf

    names = [f"value_{index}" for index in range(len(df.columns))]
    # a hash passes over nulls, so that (1, null) would be (null, 1): say where they are
    nulls = [sf.col(quoted(name)).isNull() for name in df.columns]
    columns = [sf.col(quoted(name)).alias(new) for name, new in zip(df.columns, names, strict=True)]
    try:
        flat = df.select(*columns, sf.array(*nulls).alias("nulls"))
        found = flat.agg(*content_columns([*names, "nulls"])).collect()
    except AnalysisException as error:
        logger.info("the rows cannot be identified by their content: %s", brief_cause(error))
        return None
    except spark_errors() as error:
        msg = f"the table's rows cannot be read: {brief_cause(error)}"
        raise DataError(msg) from error
    return f"{df.schema.simpleString()} {Content.from_row(found[0].asDict())}"

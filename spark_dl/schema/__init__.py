"""Feature specs and the one table of types."""

from spark_dl.schema.spec import Feature, FeatureSpec, Role, SpecEntry
from spark_dl.schema.types import DTYPES, DType

__all__ = ["DTYPES", "DType", "Feature", "FeatureSpec", "Role", "SpecEntry"]

"""What comes after the last step: the chief exports what all ranks have learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spark_dl.training.export import export_model
from spark_dl.training.state import averaged_state

if TYPE_CHECKING:
    import keras

    from spark_dl.schema import FeatureSpec
    from spark_dl.training.collective import Collective
    from spark_dl.training.task import TrainTask

__all__ = ["export_trained"]


def export_trained(
    model: keras.Model, spec: FeatureSpec, task: TrainTask, collective: Collective
) -> str:
    """Export the model with the mean of all ranks' moving statistics; all ranks call it.

    Args:
        model: trained and built.
        spec: the columns that it takes.
        task: what was trained.
        collective: of this rank.

    Returns:
        the exported version's folder on the chief, an empty text on other ranks.

    Raises:
        ModelError: the model cannot be exported.
        StorageError: the folder cannot be written.
    """
    with averaged_state(model, collective):
        if collective.rank:
            return ""
        return export_model(
            model,
            spec,
            task.paths.model(task.version),
            run_id=task.paths.run_id,
            version=task.version,
            fingerprint=task.fingerprint,
            init_from=task.init_from,
        )

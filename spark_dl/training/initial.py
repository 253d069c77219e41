"""A warm start: weights of an earlier model, for a run that is no resume of it."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from typing import TYPE_CHECKING, Final

from spark_dl.errors import ConfigError
from spark_dl.storage import Storage

if TYPE_CHECKING:
    import keras

__all__ = ["load_initial"]

#: Where a `.keras` file keeps its weights.
_WEIGHTS: Final = "model.weights.h5"


def load_initial(model: keras.Model, path: str) -> None:
    """Give a model the weights of a `.keras` or `.weights.h5` file; nothing in it is run.

    The optimizer stays as it is.

    Args:
        model: built; of the same layers as the file's, whichever of them are frozen.
        path: the file.

    Raises:
        ConfigError: the file is none of these, or of another model.
        StorageError: it cannot be read.
    """
    data = Storage(path).read_bytes(path)
    try:
        if path.endswith(".keras"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = archive.read(_WEIGHTS)
        with tempfile.TemporaryDirectory() as folder:
            local = os.path.join(folder, _WEIGHTS)
            with open(local, "wb") as file:
                file.write(data)
            # Keras would load the optimizer too: learning rate, number of steps, slots
            begins_anew = [model.optimizer] if model.compiled else []
            model.load_weights(local, objects_to_skip=begins_anew)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        msg = (
            f"init_from: the weights in {path} do not fit the model: {error}; the model that "
            "model_fn returns must have the same layers"
        )
        raise ConfigError(msg) from error

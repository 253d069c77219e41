"""`checkpoint.json` may have been written by somebody else."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from spark_dl.training.checkpoint import Checkpoint

POSITION = Checkpoint.model_fields["position"].annotation


@pytest.mark.parametrize("name", ["../../other/model.npz", "/etc/passwd", "s3://b/model.npz"])
@pytest.mark.parametrize("field", ["model", "ranks"])
def test_parts_lie_in_the_checkpoints_folder(name, field):
    position = {n: 0 for n, f in POSITION.model_fields.items() if f.is_required()}
    record = {"position": position, "model": "model.npz", "ranks": ["0.npz"], "checksums": {}}
    Checkpoint.model_validate(record)
    record[field] = [name] if field == "ranks" else name
    with pytest.raises(ValidationError, match="outside the checkpoint's folder"):
        Checkpoint.model_validate(record)

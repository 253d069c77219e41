"""How many parameters the config's model has: built once, in a process of its own.

Run by the doctor as ``python -m``; the question comes on stdin, the number goes to stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spark_dl.config import JobConfig

__all__ = ["count_parameters"]


def count_parameters(config: JobConfig, *, timeout_s: float) -> tuple[int | None, str | None]:
    """Return the number of parameters, or `None` and why it cannot be known here."""
    from spark_dl.shards import Manifest
    from spark_dl.storage import Storage, join, normalise

    if config.model is None or config.dataset is None:
        return None, "no model and dataset in the config"
    folder = normalise(config.dataset.path)
    if not Storage(folder).exists(join(folder, "manifest.json")):
        return None, "the dataset is not prepared yet, and the model's inputs depend on it"
    question = {
        "fn": config.model.fn,
        "params": config.model.params,
        "spec": Manifest.read(folder).spec.model_dump(mode="json"),
        "path": sys.path,
    }
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", __spec__.name],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"the model was not built within {timeout_s:g} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return None, f"the model cannot be built here: {lines[-1] if lines else 'no reason given'}"
    return int(done.stdout.split()[-1]), None


def _main(question: dict[str, Any]) -> int:
    sys.path[:] = question["path"]
    from spark_dl.schema import FeatureSpec
    from spark_dl.training.model import resolve_function

    build = resolve_function(question["fn"])
    model = build(FeatureSpec.model_validate(question["spec"]), question["params"])
    return int(model.count_params())


if __name__ == "__main__":
    sys.stdout.write(f"\n{_main(json.load(sys.stdin))}\n")

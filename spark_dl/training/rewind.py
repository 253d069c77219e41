"""Cutting a run's records back to the step that it resumes from: no step twice, none missing.

Event files are TFRecords of `Event` messages
(https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details"); those of one
writer are in the order of their steps.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Final

from tensorflow.core.util import event_pb2

from spark_dl.storage import Storage, join

if TYPE_CHECKING:
    from spark_dl.storage import RunPaths

__all__ = ["kept_events", "kept_metrics", "rewind"]

#: What TensorBoard knows event files by.
_EVENTS: Final = "tfevents"
_HEADER_BYTES: Final = 12
_FOOTER_BYTES: Final = 4
_LENGTH: Final = struct.Struct("<Q")


def rewind(paths: RunPaths, step: int) -> None:
    """Remove what was logged after a step.

    Args:
        paths: the run's paths.
        step: the last step that counts; -1 removes everything.
    """
    storage = Storage(paths.root)
    if storage.exists(paths.metrics):
        storage.write_atomic(paths.metrics, kept_metrics(storage.read_text(paths.metrics), step))
    for name in storage.files(paths.events):
        if _EVENTS not in name:
            continue  # a profile, which is of no step's records
        path = join(paths.events, name)
        old = storage.read_bytes(path)
        new = kept_events(old, step)
        if not new:
            storage.remove(path)
        elif len(new) < len(old):
            storage.write_atomic(path, new)


def kept_metrics(lines: str, step: int) -> str:
    """Return the lines of `metrics.jsonl` up to a step; half a last line is dropped."""
    kept = []
    for line in lines.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step:
            kept.append(line + "\n")
    return "".join(kept)


def kept_events(data: bytes, step: int) -> bytes:
    """Return an event file up to a step; a record that was not written to its end is dropped."""
    position = 0
    while position + _HEADER_BYTES <= len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        start = position + _HEADER_BYTES
        end = start + length + _FOOTER_BYTES
        if end > len(data) or event_pb2.Event.FromString(data[start : start + length]).step > step:
            break
        position = end
    return data[:position]

"""Event files for TensorBoard, written by a process of their own.

Writing them needs no TensorFlow, whose import takes long, if TensorBoard is told so; in the process
of the tests it would believe it from then on.
"""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json, sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
for folder, values in json.loads(sys.argv[1]).items():
    writer = EventFileWriter(folder)
    for step, value in enumerate(values):
        value = summary_pb2.Summary.Value(tag="epoch/loss", simple_value=value)
        summary = summary_pb2.Summary(value=[value])
        writer.add_event(event_pb2.Event(wall_time=1.7e9 + step, step=step, summary=summary))
    writer.close()
"""


def write_events(curves):
    """Write the values of ``epoch/loss`` at steps 0, 1, … into a file in each folder."""
    told = json.dumps({str(folder): list(values) for folder, values in curves.items()})
    subprocess.run([sys.executable, "-c", SCRIPT, told], check=True, timeout=120)

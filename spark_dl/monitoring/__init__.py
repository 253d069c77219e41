"""What the driver shows while a training runs."""

from spark_dl.monitoring.progress import Progress, ProgressEvent
from spark_dl.monitoring.tensorboard import TensorBoard, start_tensorboard

__all__ = ["Progress", "ProgressEvent", "TensorBoard", "start_tensorboard"]

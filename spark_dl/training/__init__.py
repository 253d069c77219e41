"""What runs in the child processes: one Keras training, the same on every rank.

Nothing here imports pyspark, and TensorFlow is imported by the modules that need it only.
"""

from spark_dl.training.task import TrainTask

__all__ = ["TrainTask"]

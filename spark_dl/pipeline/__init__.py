"""The only composer: table → shards → cluster → training → model → table."""

from spark_dl.pipeline.jobs import run_infer, run_prepare, run_train
from spark_dl.pipeline.library import predict, prepare, train
from spark_dl.runs import Run

__all__ = ["Run", "predict", "prepare", "run_infer", "run_prepare", "run_train", "train"]

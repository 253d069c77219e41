"""The only composer: table → shards → cluster → training → model → table."""

from spark_dl.pipeline.evaluation import evaluate, run_evaluate
from spark_dl.pipeline.infer import run_infer
from spark_dl.pipeline.jobs import run_prepare, run_train
from spark_dl.pipeline.library import prepare, train
from spark_dl.pipeline.scoring import predict
from spark_dl.pipeline.streaming import score_stream
from spark_dl.runs import Run

__all__ = [
    "Run",
    "evaluate",
    "predict",
    "prepare",
    "run_evaluate",
    "run_infer",
    "run_prepare",
    "run_train",
    "score_stream",
    "train",
]

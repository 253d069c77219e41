"""From a Delta table of handwritten digits to a Delta table of predictions, with a report.

Run it by ``make demo``, or: ``python examples/demo/run.py --dir demo-output --backend barrier``.

The data are the UCI handwritten digits that scikit-learn carries: 1,797 images of 8 by 8 pixels.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import model
import numpy as np
import report
from sklearn.datasets import load_digits

import spark_dl
from spark_dl.config import OutputConfig
from spark_dl.session import job_session
from spark_dl.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame, SparkSession

    from spark_dl import Dataset, Run

SEED = 7
NUM_WORKERS = 2
EPOCHS = 20
GLOBAL_BATCH_SIZE = 64


class Stages:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)


def main() -> None:
    """Run the demo."""
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    stages = Stages()
    with contextlib.ExitStack() as stack:
        with stages.stage("spark"):
            spark = stack.enter_context(job_session("spark_dl demo"))
        with stages.stage("table"):
            digits = digits_table(spark, os.path.join(options.dir, "tables", "digits"))
        with stages.stage("prepare"):
            dataset = prepare(digits, os.path.join(options.dir, "dataset"))
        with stages.stage("train"):
            run = spark_dl.train(
                model.build,
                dataset,
                params={"learning_rate": 2e-3},
                num_workers=NUM_WORKERS,
                epochs=options.epochs,
                global_batch_size=GLOBAL_BATCH_SIZE,
                seed=SEED,
                runs=os.path.join(options.dir, "runs"),
                backend=options.backend,
                tensorboard="keep" if options.keep_tensorboard else True,
            )
        with stages.stage("predict"):
            scored = predict(dataset, run, os.path.join(options.dir, "tables", "predictions"))
    summary = write_results(options, run, dataset, scored, stages)
    print(where_everything_is(options.dir, run, summary))


def arguments() -> argparse.Namespace:
    """Return the settings: from the command line, else from the environment."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dir", default=os.environ.get("DEMO_DIR") or "demo-output")
    parser.add_argument("--backend", default=os.environ.get("BACKEND") or "tensorflowonspark")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument(
        "--keep-tensorboard", action="store_true", help="leave TensorBoard running afterwards"
    )
    options = parser.parse_args()
    options.dir = os.path.abspath(options.dir)
    return options


def digits_table(spark: SparkSession, path: str) -> DataFrame:
    """Write the images to a Delta table, if an earlier run has not done so, and read it."""
    if not os.path.isdir(os.path.join(path, "_delta_log")):
        data = load_digits()
        rows = [
            (number, (pixels / 16).tolist(), int(digit))
            for number, (pixels, digit) in enumerate(zip(data.data, data.target, strict=True))
        ]
        columns = "id bigint, pixels array<double>, digit int"
        spark.createDataFrame(rows, columns).write.format("delta").save(path)
    return spark.read.format("delta").load(path)


def prepare(digits: DataFrame, path: str) -> Dataset:
    """Turn the table into TFRecord shards."""
    return spark_dl.prepare(
        digits,
        features={"image": spark_dl.Feature("pixels", shape=(8, 8, 1))},
        label="digit",
        id="id",
        path=path,
        splits={"train": 0.7, "validation": 0.1, "test": 0.2},
        seed=SEED,
    )


def predict(dataset: Dataset, run: Run, path: str) -> list[tuple[int, int, list[float]]]:
    """Score the test rows, write them to a Delta table and read them back.

    Returns:
        The digit, the prediction and the pixels of each row, ordered by id.
    """
    scored = spark_dl.predict(dataset.table("test"), run.model_path, scoring_id=run.run_id)
    write_table(scored, OutputConfig(path=path, format="delta"), scoring_id=run.run_id)
    written = scored.sparkSession.read.format("delta").load(path)
    rows = written.where(written.scoring_id == run.run_id).orderBy("id").collect()
    return [(row.digit, int(np.argmax(row.prediction)), list(row.image)) for row in rows]


def write_results(
    options: argparse.Namespace,
    run: Run,
    dataset: Dataset,
    scored: list[tuple[int, int, list[float]]],
    stages: Stages,
) -> dict[str, object]:
    """Write `report.html` and `summary.json`, and return the summary."""
    labels, predictions, images = (np.array(column) for column in zip(*scored, strict=True))
    summary: dict[str, object] = {
        "test_accuracy": float((labels == predictions).mean()),
        "rows_predicted": len(scored),
        "run_id": run.run_id,
        "backend": options.backend,
        "seconds": stages.seconds,
        "workers": NUM_WORKERS,
        "metrics": dict(run.metrics),
        "model_path": run.model_path,
    }
    totals = dataset.manifest.totals
    seconds = ", ".join(f"{stage} {spent:.1f} s" for stage, spent in stages.seconds.items())
    text = report.render(
        report.ReportData(
            history={name: list(values) for name, values in run.history.items()},
            labels=labels,
            predictions=predictions,
            images=images.reshape(-1, 8, 8),
            tiles={
                "test accuracy": f"{summary['test_accuracy']:.1%}",
                "rows predicted": f"{len(scored):,}",
                "workers": str(NUM_WORKERS),
                "training": f"{stages.seconds['train']:.0f} s",
            },
            facts={
                "run": run.run_id,
                "backend": options.backend,
                "rows": ", ".join(f"{split} {rows:,}" for split, rows in totals.items()),
                "epochs": f"{options.epochs} of {GLOBAL_BATCH_SIZE} rows a step, seed {SEED}",
                "time": seconds,
                "model": run.model_path,
                "spark_dl": spark_dl.__version__,
            },
        )
    )
    with open(os.path.join(options.dir, "report.html"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(options.dir, "summary.json"), "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=2)
        file.write("\n")
    return summary


def where_everything_is(folder: str, run: Run, summary: dict[str, object]) -> str:
    """Return what the demo says at its end."""
    lines = {
        "digits": os.path.join(folder, "tables", "digits"),
        "dataset": os.path.join(folder, "dataset"),
        "run": run.path,
        "model": run.model_path,
        "predictions": os.path.join(folder, "tables", "predictions"),
        "report": os.path.join(folder, "report.html"),
        "summary": os.path.join(folder, "summary.json"),
        "TensorBoard": f"{os.path.relpath(sys.executable)} -m tensorboard.main --logdir "
        + os.path.join(run.path, "events"),
    }
    head = (
        f"\ntest accuracy {summary['test_accuracy']:.4f} on {summary['rows_predicted']} rows, "
        f"backend {summary['backend']}\n"
    )
    return head + "\n".join(f"  {name:<12} {path}" for name, path in lines.items())


if __name__ == "__main__":
    main()

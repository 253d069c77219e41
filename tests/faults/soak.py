"""Kill at random, again and again: the run must end as if nobody had.

A driver of its own trains on two executors. At random steps a random one of its processes gets a
SIGKILL: a child that trains, the agent above it, the executor's JVM, the driver itself (which is
then started again by the same command). At the end weights and records are those of an undisturbed
run, to the bit, and no process is left.
``python tests/faults/soak.py --kills 20 [--backends barrier …] [--seed 1] [--json]``
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from faults.conftest import sha256  # noqa: E402
from faults.processes import executor, is_child, parent, wait_for_end  # noqa: E402
from faults.soak_model import model  # noqa: E402
from shells import plain_environ, start_java_quickly  # noqa: E402

from spark_dl.config import CheckpointConfig  # noqa: E402
from spark_dl.storage import JobStatus, RunPaths  # noqa: E402
from spark_dl.testing import (  # noqa: E402
    dense_entries,
    descendants,
    run_ranks,
    write_shards,
)
from spark_dl.training import TrainTask  # noqa: E402
from spark_dl.training.entry import run_rank  # noqa: E402

WORKERS, BATCH, STEPS_PER_EPOCH, SIZE, SEED = 2, 12, 20, 8, 7
#: steps between two kills, at most; half of it on average
DISTANCE = 24
PACE_S = 0.02
#: how long a run may take to make a step again
PATIENCE_S = 300.0
#: what is killed, and how often of all kills
VICTIMS = {"child": 4, "agent": 2, "executor": 2, "driver": 2}


def write_dataset(folder: str) -> None:
    """Write rows for one epoch."""
    rng = np.random.default_rng(3)

    def columns(rows: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(rows, SIZE)).astype(np.float32)
        return {"x": x, "y": (x.sum(axis=1) > 0).astype(np.float32)}

    splits = {"train": columns(STEPS_PER_EPOCH * BATCH), "validation": columns(31)}
    write_shards(folder, dense_entries(SIZE), splits)


def timed_records(path: str) -> list[dict]:
    """Return what `metrics.jsonl` says; half a last line is not there yet."""
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def records(path: str) -> list[dict]:
    """Return what `metrics.jsonl` says, without times."""
    return [{k: v for k, v in line.items() if k != "time"} for line in timed_records(path)]


def last_step(path: str) -> int:
    """Return the last step that was logged."""
    return max((record["step"] for record in timed_records(path)), default=0)


def last_time(path: str) -> float:
    """Return when the last line was written."""
    return max((record["time"] for record in timed_records(path)), default=0.0)


@functools.cache
def undisturbed(dataset: str, runs: str, epochs: int) -> tuple[str, list[dict]]:
    """Train without Spark and without a kill; return the weights' hash and the records."""
    task = TrainTask(
        model_fn=model,
        params={"pace_s": 0.0},
        dataset=dataset,
        paths=RunPaths(runs=runs, run_id="undisturbed"),
        epochs=epochs,
        global_batch_size=BATCH,
        seed=SEED,
        log_every_steps=1,
        checkpoint=CheckpointConfig(),
    )
    found = run_ranks(run_rank, task, world_size=WORKERS, timeout_s=PATIENCE_S)
    return sha256(found[0]["model_path"]), records(task.paths.metrics)


@dataclass
class Soak:
    """One run under fire.

    Attributes:
        folder: where the job lives.
        dataset: its rows.
        backend: what forms the cluster.
        epochs: of the run.
        chance: where randomness comes from.
        kills: what was killed so far, with the seconds that it cost.
    """

    folder: Path
    dataset: str
    backend: str
    epochs: int
    chance: random.Random
    kills: list[tuple[str, float]] = field(default_factory=list)
    driver: subprocess.Popen | None = None
    before: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Write the job."""
        self.folder.mkdir()
        shutil.copy(ROOT / "tests" / "faults" / "soak_model.py", self.folder)
        config = {
            "dataset": {"path": self.dataset},
            "model": {"fn": "soak_model:model", "params": {"pace_s": PACE_S}},
            "cluster": {
                "backend": self.backend,
                "num_workers": WORKERS,
                "max_restarts": 10_000,
                "restarts_per_hour": 10_000,
            },
            "training": {
                "epochs": self.epochs,
                "global_batch_size": BATCH,
                "seed": SEED,
                "log_every_steps": 1,
                "checkpoint": {"every_steps": 8},
            },
            "tensorboard": {"enabled": False},
            "runs": str(self.folder / "runs"),
            "run_id": "run",
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(config))
        self.paths = RunPaths(runs=str(self.folder / "runs"), run_id="run")

    def start(self) -> None:
        """Start the driver as a scheduler would."""
        job = [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", "job.yaml"]
        with (self.folder / "log").open("a") as log:
            self.driver = subprocess.Popen(
                job, cwd=self.folder, env=plain_environ(), stdout=subprocess.DEVNULL, stderr=log
            )

    def pids(self) -> dict[str, int]:
        """Return a random one of the processes of each kind that trains now."""
        children = [pid for pid in descendants(self.driver.pid) if is_child(pid)]
        if not children:
            return {"driver": self.driver.pid}
        child = self.chance.choice(children)
        agent = parent(child)
        jvm = executor(agent)
        return {"child": child, "agent": agent, "executor": jvm, "driver": self.driver.pid}

    def wait_for(self, what: str, is_so: Callable[[], bool]) -> bool:
        """Wait until something is so; return whether the run goes on after it."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            if (code := self.driver.poll()) is not None:
                if code:
                    msg = f"the driver ended with {code}:\n{self.log_tail()}"
                    raise SystemExit(msg)
                return False
            if time.monotonic() > deadline:
                msg = f"no {what} after {PATIENCE_S:g} s:\n{self.log_tail()}"
                raise SystemExit(msg)
            time.sleep(0.02)
        return self.driver.poll() is None

    def wait_for_step(self, step: int) -> bool:
        """Wait until a step is logged; return whether the run goes on after it."""
        return self.wait_for(f"step {step}", lambda: last_step(self.paths.metrics) >= step)

    def wait_for_attempt(self, number: int) -> None:
        """Wait until another attempt than those up to `number` has made a step."""
        if self.wait_for("new attempt", lambda: self.attempt > number):
            since = time.time()
            self.wait_for("step after it", lambda: last_time(self.paths.metrics) > since)

    @property
    def attempt(self) -> int:
        """Number of the attempt that the driver tells of."""
        return JobStatus.read(self.paths.status).attempt

    def log_tail(self) -> str:
        """Return the end of the drivers' log."""
        return (self.folder / "log").read_text()[-4000:]

    def kill_one(self) -> None:
        """Kill something, and wait until the run is again where it was."""
        kinds = list(VICTIMS)
        wanted = self.chance.choices(kinds, [VICTIMS[kind] for kind in kinds])[0]
        try:
            pids = self.pids()
        except OSError:
            return  # they were just ending: the next try finds others
        kind = wanted if wanted in pids else "driver"
        step, attempt = last_step(self.paths.metrics), self.attempt
        started = time.monotonic()
        its = descendants(pids[kind])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[kind], signal.SIGKILL)
        if kind == "driver":
            self.driver.wait(PATIENCE_S)
        wait_for_end(its)
        if kind == "driver":
            self.start()
        self.wait_for_attempt(attempt)
        self.kills.append((kind, time.monotonic() - started))
        print(f"{self.backend}: {kind} (pid {pids[kind]}) killed after step {step}, "
              f"{self.kills[-1][1]:.1f} s lost", flush=True)  # fmt: skip

    def run(self, kills: int) -> None:
        """Kill so often, then let the run end."""
        self.start()
        step = 0
        while len(self.kills) < kills:
            step = last_step(self.paths.metrics) + self.chance.randint(1, DISTANCE)
            if not self.wait_for_step(step):
                break
            self.kill_one()
        its = descendants(self.driver.pid)
        if code := self.driver.wait(PATIENCE_S + self.epochs * STEPS_PER_EPOCH):
            msg = f"the driver ended with {code}:\n{self.log_tail()}"
            raise SystemExit(msg)
        wait_for_end(its)


def soak(backend: str, kills: int, folder: Path, chance: random.Random) -> dict:
    """Run one backend under fire and return its row of the table."""
    epochs = max(2, -(-kills * DISTANCE // STEPS_PER_EPOCH) + 1)
    dataset, runs = str(folder / "dataset"), str(folder / f"alone-{epochs}")
    weights, expected = undisturbed(dataset, runs, epochs)
    under_fire = Soak(folder / backend, dataset, backend, epochs, chance)
    under_fire.run(kills)
    lost = [seconds for _, seconds in under_fire.kills]
    return {
        "backend": backend,
        "kills": len(lost),
        **{kind: sum(k == kind for k, _ in under_fire.kills) for kind in VICTIMS},
        "steps": epochs * STEPS_PER_EPOCH,
        "equal_weights": sha256(under_fire.paths.model(1)) == weights,
        "equal_records": records(under_fire.paths.metrics) == expected,
        "median_s_lost": round(statistics.median(lost), 1) if lost else None,
        "longest_s_lost": round(max(lost), 1) if lost else None,
    }


def main() -> None:
    """Soak and print; exit 1 where a run did not end as the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=4, help="of all backends together")
    parser.add_argument("--backends", nargs="+", default=["barrier", "tensorflowonspark"])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", action="store_true", help="one JSON object a backend")
    options = parser.parse_args()
    start_java_quickly()
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)  # noqa: S311 - no secret
    rows = []
    with tempfile.TemporaryDirectory(prefix="spark-dl-soak-") as folder:
        write_dataset(os.path.join(folder, "dataset"))
        for number, backend in enumerate(options.backends):
            share = options.kills // len(options.backends)
            share += number < options.kills % len(options.backends)
            rows.append(soak(backend, share, Path(folder), chance))
            print(json.dumps(rows[-1]) if options.json else rows[-1], flush=True)
    if not all(row["equal_weights"] and row["equal_records"] for row in rows):
        msg = "a run did not end as the one that was left alone"
        raise SystemExit(msg)


if __name__ == "__main__":
    main()

"""How long a training takes to go on, from a checkpoint late in the epoch and from an early one.

    python tests/bench/resume.py --json

A training of one epoch leaves a checkpoint near its beginning and one near its end. Each is resumed in turns, in a folder
of its own, until its first step is logged: index, plan, weights, optimizer, the pack's shards, one step. Medians of the rounds.
A loader that counts its way to where it was, as an iterable data set does, would take the longer the later it is.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from components.train.checkpoints.checkpoint import attempts
from components.train.folder import TrainingFolder
from components.train.settings import TrainConfig
from components.train.worker import TrainJob, run_rank
from tests.bench._evidence import bench, evidence
from tests.components.training_set import write_base, write_shards

PER_STEP, EVERY = 20, 50  # examples of a step, nearly; steps between checkpoints


class FirstStep(BaseException):
    """Ends a training that has shown what it was to show; an Exception would only end its live metrics."""


def measure(examples: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards, base = write_shards(folder / "shards", examples, per_shard=500), write_base(folder / "base")
        steps = examples // PER_STEP
        settings = TrainConfig(
            steps=steps,
            pack_tokens=128,
            pack_media=PER_STEP,
            packs_per_step=1,
            checkpoint_every=EVERY,
            keep_checkpoints=steps // EVERY + 1,
            log_every=1,
            workers=1,
        )
        job = TrainJob(settings, shards, base, TrainingFolder(f"{folder}/whole"))
        run_rank(job, torch.device("cpu"))
        names = attempts(job.folder.checkpoints)
        chosen = {"early": names[0], "late": names[-2]}
        times: dict[str, list[float]] = {which: [] for which in chosen}
        for _ in range(rounds + 1):
            for which, name in chosen.items():
                times[which].append(resumed(job, name, folder / "again"))
    medians = {which: statistics.median(values[1:]) for which, values in times.items()}
    return evidence(
        "resume",
        f"1 thread, torch {torch.__version__}",
        "the same, from the first checkpoint of the epoch",
        {"late_over_early": round(medians["late"] / medians["early"], 3)},
        {
            "examples": examples,
            "steps": steps,
            "resumed_after_step": {which: int(name.split("-")[1]) for which, name in chosen.items()},
            "seconds": {which: round(value, 4) for which, value in medians.items()},
            "rounds": rounds,
        },
    )


def resumed(job: TrainJob, name: str, folder: Path) -> float:
    """Seconds from the start of a rank to its first step after a checkpoint."""
    shutil.copytree(f"{job.folder.checkpoints}/{name}", folder / "checkpoints" / name)
    logged: list[float] = []

    def send(message: Mapping[str, Any]) -> None:
        logged.append(time.perf_counter())
        raise FirstStep

    began = time.perf_counter()
    try:
        run_rank(replace(job, folder=TrainingFolder(str(folder))), torch.device("cpu"), send)
    except FirstStep:
        pass
    finally:
        shutil.rmtree(folder)
    return logged[0] - began


if __name__ == "__main__":
    bench(__doc__, measure, examples=20_000, rounds=9)

"""What it costs that a training has the same bits on any number of ranks: a step with and without `exact_elastic`.

    python tests/bench/exact_elastic.py --json

Two gloo ranks of one thread each train a small PLM on four packs a step. Blocks of steps with and without the option take
turns in the same processes; each figure is the median of a step, in the first rank's CPU time, which other work on the machine
hardly touches, and in time on the clock. `reduced_each` also reduces in every micro-step, as the
option must, but with a reduce-scatter and the fused update.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from components.train.data.loader import MicroBatch, StepWork
from components.train.loop import Hooks, train
from components.train.model.assembly import assemble
from components.train.model.parallel import Group
from components.train.sections import ParallelSettings
from components.train.settings import TrainConfig
from plm_model.families.plm.collator import collate
from plm_model.families.plm.model import build
from plm_model.families.plm.settings import PLMConfig, ProcessorConfig, VisionConfig
from plm_model.families.plm.weights import initialise
from plm_model.nn.config import DecoderConfig
from plm_model.packs.example import example
from tests.bench._evidence import bench, evidence

CPU = torch.device("cpu")
RANKS, PACKS, TOKENS, STEPS, WARM_UP = 2, 4, 512, 5, 2
MODEL = PLMConfig(
    vision=VisionConfig(image_size=56, patch_size=14, width=128, layers=4, heads=4),
    decoder=DecoderConfig(vocab_size=2000, dim=256, layers=8, heads=8, kv_heads=4, hidden_dim=768, max_seq_len=1024),
    image_token_id=3,
    processor=ProcessorConfig(vision_input_type="tile", max_num_tiles=1),
)
PLAIN = TrainConfig(lr=1e-4, packs_per_step=PACKS, steps=10**6, log_every=10**6)
KINDS = {
    "plain": PLAIN,
    "reduced_each": replace(PLAIN, parallel=ParallelSettings(reduce_last_only=False)),
    "exact_elastic": replace(PLAIN, exact_elastic=True),
}


def fill(model: Any, device: torch.device, added: frozenset[str]) -> None:
    initialise(model, seed=0, device=device)


def works(group: Group, first: int, count: int) -> list[StepWork]:
    """Steps of packs of random text and one white tile."""
    found = []
    for number in range(first, first + count):
        packs = []
        for pack in range(group.rank, PACKS, group.world):
            tokens = np.random.default_rng(number * PACKS + pack).integers(5, 2000, TOKENS).astype(np.int32)
            batch = collate([example(tokens, tokens)], [np.zeros((0, 3, 1, 1), np.uint8)], MODEL)
            packs.append(MicroBatch(batch, number * PACKS + pack, 1.0))
        found.append(StepWork(number, 0.0, tuple(packs), PACKS * TOKENS, PACKS))
    return found


def rank_main(rank: int, folder: str, rounds: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    group, seconds = Group.current(CPU), defaultdict(list)
    trainees = {}
    for name, settings in KINDS.items():
        model = build(MODEL)
        trainees[name] = (model, assemble(model, fill, settings, group))
    for turn in range(rounds):
        for name, (model, optimizer) in trainees.items():
            times: list[tuple[float, float]] = []
            steps = works(group, 2 + turn * (STEPS + WARM_UP), STEPS + WARM_UP)
            hooks = Hooks(after_step=lambda work, times=times: times.append((time.process_time(), time.perf_counter())))
            train(model, optimizer, steps, KINDS[name], group, hooks)
            seconds[name] += np.diff(times, axis=0)[WARM_UP - 1 :].tolist()
    if rank == 0:
        Path(folder, "seconds.json").write_text(json.dumps(seconds))
    dist.destroy_process_group()


def measure(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, (folder, rounds), nprocs=RANKS)
        seconds = json.loads(Path(folder, "seconds.json").read_text())
    cpu = {name: statistics.median(value for value, _ in values) for name, values in seconds.items()}
    clock = {name: statistics.median(value for _, value in values) for name, values in seconds.items()}
    return evidence(
        "exact_elastic",
        f"torch {torch.__version__}",
        "the same training without exact_elastic, reduced in the last micro-step only",
        {f"plain_over_{name}": round(cpu["plain"] / cpu[name], 3) for name in KINDS if name != "plain"},
        {
            "cpu_ms": {name: round(1000 * value, 1) for name, value in cpu.items()},
            "clock_ms": {name: round(1000 * value, 1) for name, value in clock.items()},
            "steps_each": len(seconds["plain"]),
            "load_at_end": round(os.getloadavg()[0], 1),
        },
    )


if __name__ == "__main__":
    bench(__doc__, measure, rounds=6)

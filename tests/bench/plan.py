"""Planning at scale: examples per second, memory, seek, fullness of the packs, and how long ranks wait for each other.

    python tests/bench/plan.py --json                    1 and 10 million examples, under a minute
    python tests/bench/plan.py --json --millions 100     1 and 100 million

Lengths are simulated (seed 0); costs are those of PLM-1B. Each size is planned in a process of its own, to a file, for
nearly one epoch: seconds are of CPU time (the planner has one thread), memory is the peak of the process.

`stage3` is the mix of the training bench at full size: 35 % captions of one tile, 40 % images of 5-37 tiles, 15 % videos of
32 frames, 10 % text. `long` has 85 % rows of 37 tiles, near 9,500 tokens, 10 % of one tile and 5 % of text. The relative time
of a step is the sum over its rounds of the costliest rank, over what it would be if all ranks had the same; the baseline is
first fit in the order of a shuffle, ranks taking turns.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from components.train.data.datamix import Source
from components.train.data.plan import Cost, PackPlan, PlanSpec, whole_cost
from components.train.data.plan_file import stored_plan
from tests.bench._evidence import bench, evidence

BUDGETS = {"tokens": 57_600, "tiles": 370}  # five rows of the longest that PLM has, 11,520 tokens and 74 tiles
PACKS_PER_STEP = 64
WORLDS = (8, 64)
BLOCK = 1_000_000
COMPARED = 100_000  # examples that the baseline, a loop, packs
TARGET_RATE, TARGET_GIB, TARGET_SEEK = 300_000, 4.0, 1.0


def simulated(mix: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and tiles of so many examples: int32 [count] each."""
    tokens, tiles = np.empty(count, np.int32), np.empty(count, np.int32)
    random = np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        kind = random.random(size)
        if mix == "stage3":
            seen = np.select([kind < 0.35, kind < 0.75, kind < 0.9], [1, random.integers(5, 38, size), 32], 0)
            text = np.where(kind < 0.9, random.integers(30, 400, size), random.integers(200, 4000, size))
        else:
            seen = np.select([kind < 0.85, kind < 0.95], [37, 1], 0)
            text = np.where(kind < 0.85, random.integers(30, 150, size), random.integers(50, 800, size))
        tiles[start : start + size] = seen
        tokens[start : start + size] = seen * 256 + text
    return tokens, tiles


def spec_of(mix: str, count: int, cost: Cost) -> PlanSpec:
    tokens, tiles = simulated(mix, count)
    every = (Source("all", np.arange(count, dtype=np.uint32), Fraction(1)),)
    return PlanSpec(tokens, tiles, every, 0, BUDGETS["tokens"], BUDGETS["tiles"], PACKS_PER_STEP, cost)


def plan_one(mix: str, count: int, cost: Cost) -> dict[str, Any]:
    """Plan nearly an epoch of so many examples to a file, open it again, and go to its last step."""
    spec = spec_of(mix, count, cost)
    began = time.perf_counter()
    assert spec.digest  # kept by the spec: what comes is without it
    digested = time.perf_counter() - began
    steps = int(spec.tokens.sum(dtype=np.int64)) // BUDGETS["tokens"] // PACKS_PER_STEP
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        planned = int(stored_plan(spec, steps, Path(folder)).starts[-1])
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        began = time.perf_counter()
        plan = stored_plan(spec, steps, Path(folder))
        opened = time.perf_counter() - began
        seconds = {}
        for name, step in (("last", steps - 1), ("first", 0)):
            began = time.perf_counter()
            plan.step(step)
            seconds[name] = time.perf_counter() - began
        filled = int(spec.tokens[np.asarray(plan.rows)].sum(dtype=np.int64))
        packs = len(plan.starts) - 1
    return {
        "mix": mix,
        "examples": count,
        "planned": planned,
        "cpu_s": round(cpu, 2),
        "wall_s": round(wall, 2),
        "examples_per_cpu_s": round(planned / cpu),
        "peak_gib": round(peak_kib() / 2**20, 2),
        "digest_s": round(digested, 2),
        "open_s": round(opened, 4),
        "seek_last_s": round(seconds["last"], 5),
        "seek_first_s": round(seconds["first"], 5),
        "unfilled": round(1 - filled / (packs * BUDGETS["tokens"]), 4),
    }


def peak_kib() -> int:
    """The most memory that this process had resident, in KiB; getrusage would give that of its parent, if larger."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def relative_time(steps: list[list[int]], world: int) -> float:
    """Time of all steps over that of ranks that never wait: `steps` are the costs of their packs, ranks take turns."""
    rounds = [costs[start : start + world] for costs in steps for start in range(0, len(costs), world)]
    return sum(map(max, rounds)) / (sum(map(sum, rounds)) / world)


def first_fit(tokens: Sequence[int], tiles: Sequence[int], open_packs: int = 32) -> list[list[int]]:
    """Each example into the first of the newest packs that has room for it."""
    packs: list[list[int]] = []
    room: list[list[int]] = []
    for number, size in enumerate(zip(tokens, tiles, strict=True)):
        newest = range(max(0, len(packs) - open_packs), len(packs))
        place = next((p for p in newest if all(map(int.__ge__, room[p], size))), None)
        if place is None:
            place = len(packs)
            packs.append([])
            room.append(list(BUDGETS.values()))
        packs[place].append(number)
        room[place] = [free - taken for free, taken in zip(room[place], size, strict=True)]
    return packs


def compared(mix: str, cost: Cost) -> dict[str, float]:
    """Relative times of our plan and of first fit in the order of a shuffle."""
    spec = spec_of(mix, COMPARED, cost)
    costs = cost.of(spec.tokens, spec.media)
    order = np.random.default_rng(1).permutation(COMPARED)
    packs = first_fit(spec.tokens[order].tolist(), spec.media[order].tolist())
    plain = [int(costs[order[pack]].sum()) for pack in packs]
    steps = len(plain) // PACKS_PER_STEP - 1
    theirs = [plain[n * PACKS_PER_STEP : (n + 1) * PACKS_PER_STEP] for n in range(steps)]
    plan = PackPlan.make(spec, steps)
    ours = [[int(costs[list(pack)].sum()) for pack in plan.step(n).packs] for n in range(steps)]
    found = {"first_fit_unfilled": round(1 - int(spec.tokens.sum()) / (len(packs) * BUDGETS["tokens"]), 4)}
    for world in WORLDS:
        found |= {f"ours_{world}": relative_time(ours, world), f"first_fit_{world}": relative_time(theirs, world)}
    return {name: round(value, 4) for name, value in found.items()}


def plm_1b() -> Cost:
    """What PLM-1B costs to train, all of it."""
    from plm_model.families.plm.cost import step_cost
    from plm_model.families.plm.model import build
    from plm_model.families.plm.settings import PLMConfig

    return whole_cost(step_cost(build(PLMConfig(), device="meta"), PLMConfig()))


def in_process(mix: str, count: int, cost: Cost) -> dict[str, Any]:
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(plan_one, mix, count, cost).result()


def measure(millions: int) -> dict[str, Any]:
    cost = plm_1b()
    sizes = [1_000_000, millions * 1_000_000]
    runs = [in_process("stage3", size, cost) for size in sizes] + [in_process("long", sizes[0], cost)]
    waits = {mix: compared(mix, cost) for mix in ("stage3", "long")}
    small, largest, by_mix = runs[0], runs[len(sizes) - 1], {"stage3": runs[0], "long": runs[-1]}
    return evidence(
        "plan",
        f"1 thread, numpy {np.__version__}",
        "first fit in the order of a shuffle, ranks taking turns (relative time of a step); the targets of scale",
        {
            "rate_over_target": round(min(run["examples_per_cpu_s"] for run in runs) / TARGET_RATE, 2),
            "memory_target_over_peak": round(TARGET_GIB / largest["peak_gib"], 2),
            "seek_target_over_seek": round(TARGET_SEEK / max(run["seek_last_s"] for run in runs), 1),
            "linearity": round(largest["examples_per_cpu_s"] / small["examples_per_cpu_s"], 3),
            **{
                f"first_fit_over_ours_{mix}_{world}": round(
                    waits[mix][f"first_fit_{world}"] / waits[mix][f"ours_{world}"], 3
                )
                for mix in waits
                for world in WORLDS
            },
        },
        {
            "budgets": BUDGETS,
            "packs_per_step": PACKS_PER_STEP,
            "runs": runs,
            "unfilled": {mix: run["unfilled"] for mix, run in by_mix.items()},
            "relative_time": waits,
        },
    )


if __name__ == "__main__":
    bench(__doc__, measure, millions=10)

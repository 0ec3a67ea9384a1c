"""How often the shipped gate promotes models that are equal, worse and better: every rule of it, on drawn answers.

    python tests/bench/gate.py --json

2,000 draws a cell. A draw gives two models' right and wrong answers: a model of accuracy p is right where its uniform number
is below p. With probability `correlation` (0.5 and 0.8) both models have the same number at a question, which is then the
correlation of their answers. In clusters of 5, each question takes all of that from its cluster with probability
SHARED (0.4), else it has its own: differences at one image correlate by 0.16, and the variance of their mean is 1.64 times that
of questions apart. With ten tasks the first is
the main one, and the nine others are guarded with the gate's defaults.

    aa_worst_cell    equal models: the highest share of draws promoted, over 400 and 1,000 questions, 1 and 10 tasks
    loss_promoted    a true loss of 2 points on 1,000 questions: likewise
    gain_promoted    a true gain of 5 points on 1,000 in the main task: the lowest share promoted at accuracy 0.9 and at 0.8
    answers_saved    five looks, a true gain of 10 points on 1,000: share of the answers that need not be asked; the
                     lowest of the cells; `aa_with_looks` is the first figure with looks
    any_of_ten       ten main tasks, one of them 5 points better: share promoted (printed, not promised)
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from components.evidence.paired import paired
from components.register.rules import Evidence, Measured, decide
from components.register.settings import GateConfig
from tests.bench._evidence import bench, evidence

SEED, LOOKS = 0, 5
SHARED = 0.4
ACCURACIES, CORRELATIONS, CLUSTERS = (0.8, 0.9), (0.5, 0.8), (1, 5)


@dataclass(frozen=True)
class Cell:
    """One setting of the draws; `gain` is the candidate's true gain in the main task."""

    accuracy: float
    correlation: float
    cluster: int
    questions: int
    tasks: int = 1
    gain: float = 0.0

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy}, correlation {self.correlation}, clusters of {self.cluster}, "
            f"{self.questions} questions x {self.tasks} tasks, gain {self.gain:+.2f}"
        )


def answers(cell: Cell, gain: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right (1.0) or wrong of the champion and of the candidate, and the cluster of each question."""
    n = cell.questions
    clusters = np.arange(n) // cell.cluster
    draws = rng.random((3, n))
    if cell.cluster > 1:
        of_cluster = rng.random((3, clusters[-1] + 1))[:, clusters]
        draws = np.where(rng.random(n) < SHARED, of_cluster, draws)
    same, first, second = draws
    second = np.where(same < cell.correlation, first, second)
    before, after = first < cell.accuracy, second < cell.accuracy + gain
    return before.astype(np.float64), after.astype(np.float64), clusters


def measured(cell: Cell, gain: float, rng: np.random.Generator) -> Measured:
    before, after, clusters = answers(cell, gain, rng)
    return Measured("exact_match", paired(before, after, clusters))


def promoted(cell: Cell, gate: GateConfig, draws: int) -> float:
    """Share of the draws that the gate promotes."""
    rng = np.random.default_rng([SEED, *map(ord, str(cell))])
    count = 0
    for _ in range(draws):
        tasks = {f"task{i}": measured(cell, cell.gain if i == 0 else 0.0, rng) for i in range(cell.tasks)}
        count += decide(gate, Evidence("champion version 1", tasks)).verdict == "promote"
    return count / draws


def looked(cell: Cell, gate: GateConfig, draws: int) -> tuple[float, float]:
    """Share promoted, and share of the questions that were not asked, when the gate looks while the answers come."""
    rng = np.random.default_rng([SEED, *map(ord, str(cell))])
    count, saved = 0, 0.0
    for _ in range(draws):
        before, after, clusters = answers(cell, cell.gain, rng)
        for look in range(1, LOOKS + 1):
            n = cell.questions * look // LOOKS
            tasks = {"task0": Measured("exact_match", paired(before[:n], after[:n], clusters[:n]))}
            if decide(gate, Evidence("champion version 1", tasks), look, LOOKS).verdict == "promote":
                count, saved = count + 1, saved + 1 - n / cell.questions
                break
    return count / draws, saved / draws


def cells(questions: tuple[int, ...], tasks: tuple[int, ...], gain: float) -> Iterator[Cell]:
    for n, k, accuracy, correlation, cluster in itertools.product(questions, tasks, ACCURACIES, CORRELATIONS, CLUSTERS):
        yield Cell(accuracy, correlation, cluster, n, k, gain)


def table(title: str, gate: GateConfig, over: Iterator[Cell], draws: int) -> dict[Cell, float]:
    say(title)
    shares = {}
    for cell in over:
        shares[cell] = promoted(cell, gate, draws)
        say(f"  {cell}: {shares[cell]:.4f}")
    return shares


def table_of_looks(title: str, gate: GateConfig, over: Iterator[Cell], draws: int) -> dict[Cell, tuple[float, float]]:
    say(f"{title}, {LOOKS} looks")
    found = {}
    for cell in over:
        share, saved = found[cell] = looked(cell, gate, draws)
        say(f"  {cell}: {share:.4f}, answers saved {saved:.3f}")
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(draws: int) -> dict[str, Any]:
    gate = GateConfig()
    every = GateConfig(main=tuple(f"task{i}" for i in range(10)))
    equal = table("equal models", gate, cells((400, 1000), (1, 10), 0.0), draws)
    worse = table("2 points worse", gate, cells((1000,), (1, 10), -0.02), draws)
    better = table("5 points better", gate, cells((1000,), (1, 10), 0.05), draws)
    one_of_ten = table("any of ten, one of them 5 points better", every, cells((1000,), (10,), 0.05), draws)
    equal_looks = table_of_looks("equal models", gate, cells((400, 1000), (1,), 0.0), draws)
    better_looks = table_of_looks("10 points better", gate, cells((1000,), (1,), 0.1), draws)
    return evidence(
        "gate",
        "one core",
        "a 5 % level that 2,000 draws show as 0.065 at most",
        {
            "aa_worst_cell": max(equal.values()),
            "loss_promoted": max(worse.values()),
            "gain_promoted": {
                str(accuracy): min(share for cell, share in better.items() if cell.accuracy == accuracy)
                for accuracy in ACCURACIES
            },
            "answers_saved": round(min(saved for _, saved in better_looks.values()), 3),
            "aa_with_looks": max(share for share, _ in equal_looks.values()),
            "any_of_ten": min(one_of_ten.values()),
        },
        {"draws": draws},
    )


if __name__ == "__main__":
    bench(__doc__, measure, draws=2000)

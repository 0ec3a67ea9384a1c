"""How sure we are: Wilson's interval for one accuracy, a paired bootstrap that holds at the edges for the gain between two.

Both models answer the same questions, so the gain is resampled over questions, not over two independent groups.
Worked example: of 100 questions 60 were fixed, 2 broken, 30 right both times, 8 wrong both times. Before = 0.32,
after = 0.90, gain = (60 - 2) / 100 = 0.58, and its 95 % interval is about 0.46 to 0.67.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from components.errors import UserError

UNSEEN = np.array([0.5, 0.5, 1.0])  # half a question for each outcome: fixed, broken, and (two of them) unchanged


@dataclass(frozen=True)
class Interval:
    """A value and the confidence interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Tally:
    """How many questions changed from wrong to right (fixed), right to wrong (broken), or did not change."""

    fixed: int
    broken: int
    right: int
    wrong: int

    @property
    def n(self) -> int:
        return self.fixed + self.broken + self.right + self.wrong


def tally(before: Sequence[bool], after: Sequence[bool]) -> Tally:
    """Count the four outcomes of questions answered twice; both sequences in the same order."""
    pairs = list(zip(before, after, strict=True))
    return Tally(
        fixed=pairs.count((False, True)),
        broken=pairs.count((True, False)),
        right=pairs.count((True, True)),
        wrong=pairs.count((False, False)),
    )


def accuracy_interval(correct: int, n: int, confidence: float) -> Interval:
    """Share of right answers with Wilson's score interval, which stays honest at 0 and at 1."""
    z = NormalDist().inv_cdf(0.5 + checked(confidence) / 2)
    share = correct / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def gain_interval(counts: Tally, confidence: float, resamples: int, seed: int) -> Interval:
    """Gain in accuracy with the percentile interval of a paired bootstrap over questions.

    A question has one of four outcomes, so resampling n questions is one multinomial draw of their counts. Half a question
    is added to each outcome first, else an outcome that was not seen could not be drawn: with 80 of 80 fixed the interval
    would be +1 to +1 (Agresti and Min, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24, 2005). With it: +0.925 to +1.
    """
    outcomes = np.array([counts.fixed, counts.broken, counts.right + counts.wrong], dtype=np.float64) + UNSEEN
    draws = np.random.default_rng(seed).multinomial(counts.n, outcomes / outcomes.sum(), size=resamples)
    gains = (draws[:, 0] - draws[:, 1]) / counts.n
    tail = (1 - checked(confidence)) / 2
    low, high = np.quantile(gains, [tail, 1 - tail])
    value = (counts.fixed - counts.broken) / counts.n
    return Interval(value, min(value, float(low)), max(value, float(high)))


def checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UserError(f"compare.confidence: {confidence:g}: must lie between 0 and 1, both excluded (usual: 0.95)")
    return confidence

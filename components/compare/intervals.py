"""How sure a score by itself is, and what became of the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from components.compare.samples import Compared
from components.evidence.paired import Paired, paired, quantile


@dataclass(frozen=True)
class Interval:
    """A value and the confidence interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Tally:
    """How many answers got better (fixed), worse (broken), stayed right, or stayed less than right (wrong)."""

    fixed: int
    broken: int
    right: int
    wrong: int

    @property
    def n(self) -> int:
        return self.fixed + self.broken + self.right + self.wrong


def tally(rows: Sequence[Compared]) -> Tally:
    """Count the four outcomes."""
    outcomes = [row.outcome for row in rows]
    return Tally(*(outcomes.count(outcome) for outcome in ("fixed", "broken", "right", "wrong")))


def score_interval(scores: Sequence[float], confidence: float, best: float) -> Interval:
    """The mean score: with Wilson's interval where answers are right or wrong, else with Student's."""
    if set(scores) <= {0.0, 1.0} and best == 1.0:
        return accuracy_interval(round(sum(scores)), len(scores), confidence)
    values = np.asarray(scores, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, 0.0, best)
    half = quantile(0.5 + confidence / 2, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean, max(0.0, mean - half), min(best, mean + half))


def accuracy_interval(correct: int, n: int, confidence: float) -> Interval:
    """Share of right answers with Wilson's score interval, which stays honest at 0 and at 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def gain_interval(gain: Paired, confidence: float) -> Interval:
    """The gain with its paired interval."""
    low, high = gain.interval(confidence)
    return Interval(gain.gain, low, high)


def over(rows: Sequence[Compared], rival: str) -> Paired:
    """The candidate's scores less those of `before` or of the `champion`, questions about the same media together."""
    scores = [getattr(row, rival).score for row in rows]
    return paired(scores, [row.after.score for row in rows], [row.cluster for row in rows], rows[0].best)

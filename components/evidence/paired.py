"""How two models differ over the questions that both answered, and how sure that is.

Questions that share an image or a video are one cluster: their differences are summed before anything else, since a model
that reads the picture wrongly gets several of them wrong at once. With T the sum of a cluster's differences, n its questions,
and N all questions, the bounds are the values d at which |sum(T - d n)| = t * sqrt(sum((T - d n)^2)): a score interval, the
variance taken at the value that is tested. At d = 0 and without clusters that is McNemar's test; three questions that all
were fixed prove nothing, where an interval around their own (absent) variance would be sure. t is Student's quantile with one
degree of freedom less than there are clusters.

Worked example: of 400 questions 30 were fixed and 10 broken. Gain 0.05; at 95 %, one-sided: 20 = t sqrt(40 - 40 d + 400 d^2)
and so on give a lower bound of 0.024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

# Where hardly a question changed, so many count as changed: an event that was never seen in n may still have a rate of
# 3 / n (Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983).
RULE_OF_THREE = 3.0


@dataclass(frozen=True)
class Paired:
    """Scores of a model (after) less those of another (before) on the same questions, as sums over clusters.

    `total`, `squares`, `cross` and `sizes` are the sums of T, T^2, T n and n^2; `span` is the most that one question's score
    changed, or could have where none did; `best` is the highest score that there is.
    """

    n: int
    clusters: int
    before: float
    after: float
    total: float
    squares: float
    cross: float
    sizes: float
    span: float
    best: float

    @property
    def gain(self) -> float:
        return self.total / self.n if self.n else 0.0

    def bounds(self, level: float) -> tuple[float, float]:
        """The lower and the upper bound, each true by itself in `level` of all draws; the whole range with too few clusters."""
        if self.clusters < 2:
            return -self.best, self.best
        t = quantile(level, self.clusters - 1)
        a = self.n**2 - t**2 * self.sizes
        if a <= 0:
            return -self.best, self.best
        b = self.total * self.n - t**2 * self.cross
        c = self.total**2 - t**2 * self.squares
        root = math.sqrt(max(0.0, b * b - a * c))
        least = t * math.sqrt(RULE_OF_THREE) * self.span / self.n
        low, high = min((b - root) / a, self.gain - least), max((b + root) / a, self.gain + least)
        return max(-self.best, low), min(self.best, high)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The two-sided interval: both bounds hold together in `confidence` of all draws."""
        return self.bounds(0.5 + confidence / 2)

    def p_better(self) -> float:
        """How often equal models would show at least this gain."""
        if self.clusters < 2:
            return 1.0
        scale = math.sqrt(max(self.squares, RULE_OF_THREE * self.span**2))
        return 1.0 if scale == 0 else upper_tail(self.total / scale, self.clusters - 1)

    def p_worse(self) -> float:
        """How often equal models would show at least this loss."""
        return self.turned().p_better()

    def turned(self) -> Paired:
        """The same seen from the other model."""
        return replace(self, before=self.after, after=self.before, total=-self.total, cross=-self.cross)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Paired:
        return cls(**values)


def paired(
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray,
    clusters: Sequence[str] | np.ndarray | None = None,
    best: float = 1.0,
) -> Paired:
    """The differences of scores, one a question in the same order; `clusters` names what each question is about.

    `best` is the highest score that there is. ValueError when the lengths differ, or a score is not finite.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    groups = np.arange(len(first)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    if not len(first) == len(second) == len(groups):
        raise ValueError(f"{len(first)} scores before, {len(second)} after, {len(groups)} clusters: must be as many")
    differences = second - first
    if not np.isfinite(differences).all():
        raise ValueError("a score is not a finite number")
    if not len(first):
        return Paired(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, best, best)
    sums, sizes = np.bincount(groups, differences), np.bincount(groups).astype(np.float64)
    widest = float(np.abs(differences).max())
    return Paired(
        n=len(first),
        clusters=len(sums),
        before=float(first.mean()),
        after=float(second.mean()),
        total=float(sums.sum()),
        squares=float((sums**2).sum()),
        cross=float((sums * sizes).sum()),
        sizes=float((sizes**2).sum()),
        span=widest or best,
        best=best,
    )


def quantile(level: float, degrees: int) -> float:
    """Student's t below which the share `level` lies."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))


def upper_tail(t: float, degrees: int) -> float:
    """The share of Student's distribution above t."""
    from scipy.special import stdtr

    return float(stdtr(degrees, -t))

"""What so many questions can show, before any is asked."""

from __future__ import annotations

import math
from statistics import NormalDist

from components.evidence.paired import quantile

USUAL_CHANGED = (
    0.15  # share of questions that two models of one family answer differently, where nothing is known of it
)


def power(gain: float, clusters: int, changed: float, level: float) -> float:
    """How often a true gain (mean score, -1 to 1) has a lower bound above 0 at this one-sided level.

    `changed` is the mean square of a cluster's difference: the share of questions whose score changed, without clusters.
    Worked example: gain 0.05, 1,000 questions of which 16 % change, 0.95: 0.99.
    """
    if clusters < 2:
        return 0.0
    changed = max(changed, abs(gain))
    needed = quantile(level, clusters - 1) * math.sqrt(changed)
    spread = math.sqrt(max(changed - gain**2, 1e-12))
    return NormalDist().cdf((gain * math.sqrt(clusters) - needed) / spread)


def smallest_gain(clusters: int, changed: float, level: float, chance: float = 0.8) -> float | None:
    """The smallest true gain that is found with this chance; None when not even a gain of 1 is."""
    low, high = 0.0, 1.0
    if power(high, clusters, changed, level) < chance:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, clusters, changed, level) >= chance else (middle, high)
    return high

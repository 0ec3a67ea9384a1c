"""Looking at an evaluation while it runs: how sure each look must be, so that all of them together are as sure as one.

The looks are equally spaced and stated beforehand. Look k of K may decide when the bound at level Phi(c * sqrt(K / k))
excludes zero (O'Brien and Fleming, "A multiple testing procedure for clinical trials", Biometrics 35, 1979). c is found so
that equal models pass any of the looks in 1 - confidence of draws: the density of the partial sums that passed no look is
carried from look to look on a grid (Armitage, McPherson and Rowe, "Repeated significance tests on accumulating data",
Journal of the Royal Statistical Society A 132, 1969).
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import numpy as np

GRID = 0.02  # in standard deviations of one look's increment
REACH = 8.0  # likewise; beyond lies nothing that a double can hold


def levels(looks: int, confidence: float) -> tuple[float, ...]:
    """The one-sided level of each look, for `Paired.bounds`. One look is `confidence` itself."""
    return tuple(NormalDist().cdf(value) for value in critical_values(looks, confidence))


def critical_values(looks: int, confidence: float) -> tuple[float, ...]:
    """z of each look. Five looks at 0.95: 3.92, 2.77, 2.26, 1.96, 1.75."""
    constant = _constant(looks, confidence)
    return tuple(constant * math.sqrt(looks / k) for k in range(1, looks + 1))


@cache
def _constant(looks: int, confidence: float) -> float:
    low, high = NormalDist().inv_cdf(confidence), 2 * NormalDist().inv_cdf(confidence) + 2
    for _ in range(40):
        middle = (low + high) / 2
        if _ever_passed(middle, looks) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _ever_passed(constant: float, looks: int) -> float:
    """How often the sum of k standard normal increments exceeds constant * sqrt(K) at any k of K."""
    edge = constant * math.sqrt(looks)  # z_k * sqrt(k) is the same at each look
    grid = np.arange(edge, -REACH * math.sqrt(looks), -GRID)[::-1]
    increments = np.exp(-0.5 * np.arange(-REACH, REACH + GRID, GRID) ** 2) / math.sqrt(2 * math.pi)
    density = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi)
    for _ in range(looks - 1):
        density = _next(density, increments)
    return 1.0 - float(np.trapezoid(density, dx=GRID))


def _next(density: np.ndarray, increments: np.ndarray) -> np.ndarray:
    """The density one look later, of what has not passed yet; the edge counts half, as in the trapezoidal rule."""
    weights = density.copy()
    weights[-1] /= 2
    weights[0] /= 2
    start = len(increments) // 2
    spread: np.ndarray = np.convolve(weights, increments)[start : start + len(density)] * GRID
    return spread

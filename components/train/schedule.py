"""The learning rate is a pure function of the step: linear warm-up, then a cosine down to a share of the peak.

Worked example, peak 1.0, 2 warm-up steps, 6 steps, ratio 0.1: 0.5, 1.0, 0.868, 0.55, 0.232, 0.1.
"""

from __future__ import annotations

import math


def learning_rate(step: int, *, steps: int, warmup: int, peak: float, min_ratio: float) -> float:
    """Rate of the update numbered `step`, 1..`steps`. The first is above zero, the last is `peak * min_ratio`.

    A run that is all warm-up ends at the peak.
    """
    if step <= warmup:
        return peak * step / warmup
    start = max(warmup, 1)
    done = (step - start) / max(steps - start, 1)
    return peak * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

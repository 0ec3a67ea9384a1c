"""The learning rate is a pure function of the step: a linear warm-up, then the schedule's fall.

Worked example, cosine, peak 1.0, 2 warm-up steps, 6 steps, ratio 0.1: 0.5, 1.0, 0.868, 0.55, 0.232, 0.1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.train.settings import TrainConfig


def learning_rate(step: int, settings: TrainConfig) -> float:
    """Rate of the update numbered `step`, 1..`steps`. The first is above zero, the last is the end of the schedule's fall.

    With `lr_from_zero`, an update has the rate of the one before it: the first has none, and the end is never reached.
    """
    return settings.lr * factor(step - 1 if settings.lr_from_zero else step, settings)


def factor(step: int, settings: TrainConfig) -> float:
    """Share of the peak at `step`: 0 at 0, 1 at the end of the warm-up. A run that is all warm-up ends at the peak."""
    warmup, least = settings.warmup_steps, settings.min_lr_ratio
    if step < warmup:
        return step / warmup
    start = max(warmup, 0 if settings.lr_from_zero else 1)
    done = min(max(step - start, 0) / max(settings.planned_steps - start, 1), 1.0)
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return least + (1 - least) * (1 - done)
        case "inverse_sqrt":  # Vaswani et al., arXiv:1706.03762, with the peak at the end of the warm-up
            return max(math.sqrt(max(warmup, 1) / max(step, 1)), least)
        case "wsd":  # warm-up, stable, decay: Hu et al., arXiv:2404.06395, with a linear decay
            steps = settings.planned_steps
            falling = settings.wsd_decay * steps
            left = (steps - min(step, steps)) / falling if falling else float(step < steps)
            return least + (1 - least) * min(left, 1.0)
        case "cosine":  # Loshchilov & Hutter, arXiv:1608.03983, one period
            return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done))

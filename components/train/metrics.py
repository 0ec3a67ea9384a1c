"""The metrics of a window of steps: the loss is that of every target since the last line, on all ranks, equally weighted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from components.train.loader import StepWork
from components.train.parallel import Group

if TYPE_CHECKING:
    from components.train.settings import TrainConfig

Metrics = dict[str, float]


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is not a finite number; the message names the step."""


@dataclass
class Window:
    """What has happened since the last line of metrics."""

    loss_sum: Tensor | None = None  # of this rank's targets
    supervised: int = 0  # targets, tokens and tiles of all ranks
    tokens: int = 0
    tiles: int = 0
    steps: int = 0
    started: float = field(default_factory=time.perf_counter)

    def add(self, work: StepWork, loss_sum: Tensor, supervised: int) -> None:
        self.loss_sum = loss_sum if self.loss_sum is None else self.loss_sum + loss_sum
        self.supervised += supervised
        self.tokens += work.tokens
        self.tiles += work.tiles
        self.steps += 1


def summarise(
    window: Window, work: StepWork, rate: float, norm: Tensor, settings: TrainConfig, group: Group
) -> Metrics:
    """The metrics of a window: loss per target, speed over all ranks, seconds to go. Raises TrainingDiverged."""
    assert window.loss_sum is not None
    (loss_sum,) = group.sum(float(window.loss_sum))
    loss = loss_sum / max(window.supervised, 1)
    if not (math.isfinite(loss) and math.isfinite(float(norm))):
        raise TrainingDiverged(f"step {work.step}: loss {loss}, gradient norm {float(norm)}; try a lower train.lr")
    seconds = max(time.perf_counter() - window.started, 1e-9)
    return {
        "train/loss": loss,
        "train/lr": rate,
        "train/grad_norm": float(norm),
        "train/tokens_per_s": window.tokens / seconds,
        "train/tiles_per_s": window.tiles / seconds,
        "train/eta_s": (settings.steps - work.step) * seconds / window.steps,
        "train/epoch": work.epoch,
    }

"""Which weights become the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from components.settings import Settings
from components.train.sections import TrainedParameters


class ConsolidateConfig(Settings):
    """Which weights become the model."""

    weights: Literal["trained", "average"] = Field(
        "trained", description="`trained`, or their moving `average` where train.ema_decay keeps one"
    )


@dataclass(frozen=True)
class ConsolidateSettings:
    """What the step reads: its own section, and which parameters were trained."""

    consolidate: ConsolidateConfig
    train: TrainedParameters

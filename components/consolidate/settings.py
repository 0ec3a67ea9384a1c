"""Which weights become the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from components.settings import PositiveFloat, Settings
from components.train.sections import TrainedParameters


class ConsolidateConfig(Settings):
    """Which weights become the model."""

    weights: Literal["trained", "average"] = Field(
        "trained", description="`trained`, or their moving `average` where train.ema_decay keeps one"
    )
    max_shard_gb: PositiveFloat = Field(5.0, description="largest file of tensors; more are written with an index")


@dataclass(frozen=True)
class ConsolidateSettings:
    """What the step reads: its own section, and which parameters were trained."""

    consolidate: ConsolidateConfig
    train: TrainedParameters

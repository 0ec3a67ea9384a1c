"""What the report of before and after shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from components.settings import PositiveInt, Seed, Settings


class CompareConfig(Settings):
    """What the before/after report shows."""

    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")
    bootstrap_samples: Annotated[PositiveInt, Field(le=1_000_000)] = Field(
        2000, description="resamplings of the questions behind the interval of the gain"
    )
    examples: PositiveInt = Field(24, description="questions that the report shows")
    seed: Seed = 0


@dataclass(frozen=True)
class CompareSettings:
    """What the step reads: its own section, and the names that its page shows."""

    compare: CompareConfig
    pipeline: str
    task: str

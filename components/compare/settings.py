"""What the report of before and after shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from components.settings import PositiveInt, Seed, Settings


class CompareConfig(Settings):
    """What the before/after report shows."""

    confidence: float = Field(0.95, gt=0, lt=1)
    bootstrap_samples: Annotated[PositiveInt, Field(le=1_000_000)] = 2000
    examples: PositiveInt = 24
    seed: Seed = 0


@dataclass(frozen=True)
class CompareSettings:
    """What the step reads: its own section, and the names that its page shows."""

    compare: CompareConfig
    pipeline: str
    task: str

"""What the report of before and after shows."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from components.settings import PositiveInt, Settings


class CompareConfig(Settings):
    """What the before/after report shows."""

    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")
    examples: PositiveInt = Field(24, description="questions that the report shows")


@dataclass(frozen=True)
class CompareSettings:
    """What the step reads: its own section, and the names that its page shows."""

    compare: CompareConfig
    pipeline: str
    task: str

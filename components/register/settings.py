"""What the model is called in the registry, and when the champion moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from components.settings import ModelName, Settings
from components.tracking.settings import TrackingConfig


class GateConfig(Settings):
    """When the champion alias moves."""

    metric: Literal["exact_match"] = Field("exact_match", description="what the gate compares")
    min_gain: float = Field(0.0, ge=-1, le=1, description="over the champion; over the base model where there is none")


class RegistryConfig(Settings):
    """What the model is called in the registry."""

    name: ModelName | None = Field(None, description="registered model; default: the pipeline's name")


@dataclass(frozen=True)
class RegisterSettings:
    """What the step reads: the model's name, the gate, and where the registry is."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"tracking"})  # which store it is counts, by its address

    name: str
    gate: GateConfig
    tracking: TrackingConfig

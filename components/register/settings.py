"""What the model is called in the registry, and when the champion moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from components.settings import ModelName, NonNegativeFloat, PositiveFloat, Settings, TaskName
from components.tracking.settings import TrackingConfig


class GateConfig(Settings):
    """When the champion alias moves."""

    main: tuple[TaskName, ...] = Field(
        (),
        description="tasks of which one must be better, corrected by Holm where there are several; default: the held-out rows",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of each one-sided bound")
    min_gain: float = Field(
        0.0,
        ge=0,
        le=10,
        description="least gain that a better model must have over the champion; 0.01 is a point of 100, or 0.01 CIDEr",
    )
    no_regression: tuple[TaskName, ...] | Literal["all"] = Field(
        "all", description="tasks that must not be worse; `all`: whatever is measured beside the main ones"
    )
    max_loss: NonNegativeFloat = Field(0.05, description="most that such a task may lose, counted like min_gain")
    proof: Literal["not_shown_worse", "not_worse"] = Field(
        "not_shown_worse",
        description="`not_shown_worse` holds when a loss is shown, or larger than max_loss; `not_worse` unless a larger "
        "loss is excluded, which needs many questions",
    )
    require: tuple[TaskName, ...] = Field((), description="tasks that must have been measured")
    max_megabytes: PositiveFloat | None = Field(None, description="most that the model directory may weigh")
    max_seconds_per_answer: PositiveFloat | None = Field(None, description="most that an answer may take")


class RegistryConfig(Settings):
    """What the model is called in the registry."""

    name: ModelName | None = Field(None, description="registered model; default: the pipeline's name")


@dataclass(frozen=True)
class RegisterSettings:
    """What the step reads: the model's name, the gate, and where the registry is."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"tracking"})  # which store it is counts, by its address

    name: str
    gate: GateConfig | None
    tracking: TrackingConfig

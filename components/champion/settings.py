"""Where the champion is looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from components.tracking.settings import TrackingConfig


@dataclass(frozen=True)
class ChampionSettings:
    """What the step reads: the registered model's name, whether a gate asks for its champion, and where the registry is."""

    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset({"tracking"})  # which store it is counts, by its address

    name: str
    asked: bool
    tracking: TrackingConfig

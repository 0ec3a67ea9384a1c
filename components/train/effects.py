"""Which settings of a training change what: nothing that matters, the weights, or only which of them is the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from components.effects import counted
from plm_model.family import Part

if TYPE_CHECKING:
    from components.train.settings import TrainConfig

FAMILY_PARTS: tuple[Part, ...] = ("settings", "collator", "model")
# What may change in the middle of a run: when it is saved and looked at, and which checkpoint is taken.
FREE_TO_CHANGE = {"checkpoint_every", "publish", "validate_every", "profile"}


def of_weights(settings: TrainConfig) -> dict[str, Any]:
    """The settings that decide the weights of every step, as `section.key` -> value: a resumed training has the same."""
    flat = dict(_leaves(counted(settings)))
    return {name: value for name, value in flat.items() if name.split(".")[0] not in FREE_TO_CHANGE}


def of_result(settings: TrainConfig) -> dict[str, Any]:
    """The settings that decide what a training gives, as `section.key` -> value.

    The last checkpoint is the same whenever others were made and validated; which one is best depends on both.
    """
    chosen = ("publish", "checkpoint_every", "validate_every") if settings.publish == "best" else ("publish",)
    return of_weights(settings) | {name: getattr(settings, name) for name in chosen}


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

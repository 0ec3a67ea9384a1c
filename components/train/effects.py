"""Which settings of a training change what: nothing that matters, the weights, or only which of them is the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What changes where, how loudly or how safely a model is trained, not which model comes out.
WITHOUT_EFFECT = {
    "max_failures",
    "keep_checkpoints",
    "checkpoint_patience_s",
    "max_failed_checkpoints",
    "log_every",
    "workers",
    "min_workers",
    "use_gpu",
    "cpus_per_worker",
    "loader_workers",
    "shard_cache_gb",
    "guards.hang_seconds",
    "guards.most",
}


# What may change in the middle of a run: when it is saved and looked at, and which checkpoint is taken.
FREE_TO_CHANGE = {"checkpoint_every", "result", "validate_every", "profile"}


def of_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide the weights of every step, as `section.key` -> value: what goes on has the same."""
    return {name: value for name, value in with_effect(settings).items() if name.split(".")[0] not in FREE_TO_CHANGE}


def of_result(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a training gives, as `section.key` -> value.

    The last checkpoint is the same whenever others were made and validated; which one is best depends on both.
    """
    chosen = ("result", "checkpoint_every", "validate_every") if settings["result"] == "best" else ("result",)
    return of_weights(settings) | {name: settings[name] for name in chosen}


def with_effect(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that determine the model, as `section.key` -> value."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= with_effect(value, f"{key}.")
        elif key not in WITHOUT_EFFECT:
            found[key] = value
    return found

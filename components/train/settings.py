"""The settings of a training, as plain dataclasses: the loop needs no pydantic, the config reads the same classes.

A section of settings stands beside the code that it configures; `TrainConfig` holds them all. Wrong values are a
ValueError naming the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

STRICT = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    steps: int = 100
    lr: float = 1e-3
    min_lr_ratio: float = 0.01
    warmup_steps: int = 20
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float | None = 1.0
    freeze: tuple[str, ...] = ()
    """Regular expressions of parameter names that stay as they are."""
    packs_per_step: int = 2
    """Packs of one optimizer step over all workers (global batch)."""
    pack_tokens: int = 1024
    """Token budget of a pack."""
    pack_tiles: int = 64
    """Tile budget of a pack."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    workers: int = 2
    use_gpu: bool = False
    cpus_per_worker: float = 1.0
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    result: Literal["last", "best"] = "last"
    """Which checkpoint the training gives: `best` has the lowest validation loss, or training loss where none is measured."""
    checkpoint_patience_s: float = 300.0
    """How long the last checkpoint is tried again, with training done and in memory, while the disk has no room for it."""
    log_every: int = 10
    max_failures: int = 3
    """Failed worker groups that are started again; -1 = without limit."""

    def __post_init__(self) -> None:
        require_positive(
            self, "steps", "lr", "packs_per_step", "pack_tokens", "pack_tiles", "workers", "cpus_per_worker"
        )
        require_positive(self, "checkpoint_every", "keep_checkpoints", "log_every")
        require_within(self, "min_lr_ratio", 0.0, 1.0)
        require_at_least(self, 0, "warmup_steps")
        require_at_least(self, -1, "max_failures")
        if self.clip_norm is not None:
            require_positive(self, "clip_norm")


def require_positive(settings: Any, *names: str) -> None:
    """ValueError naming the first key that is not above zero."""
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} is {getattr(settings, name)}; it must be positive")


def require_at_least(settings: Any, least: float, *names: str) -> None:
    """ValueError naming the first key below `least`."""
    for name in names:
        if not getattr(settings, name) >= least:
            raise ValueError(f"{name} is {getattr(settings, name)}; it must be at least {least}")


def require_within(settings: Any, name: str, least: float, most: float) -> None:
    """ValueError naming a key out of its range."""
    if not least <= getattr(settings, name) <= most:
        raise ValueError(f"{name} is {getattr(settings, name)}; it must be from {least} to {most}")

"""Which parameters are trained, and how fast each one: decided by its name, before the model is sharded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from components.train.sections import TrainedParameters
    from components.train.settings import TrainConfig


class UnknownParameter(ValueError):
    """A pattern of the training's settings that matches nothing, or settings that leave nothing to train."""


def freeze(model: nn.Module, settings: TrainedParameters | TrainConfig) -> None:
    """Stop the gradient of what `freeze`, a frozen group or `lora` excludes; UnknownParameter for a pattern without a match."""
    names = [name for name, _ in model.named_parameters()]
    require_matches("train.freeze", settings.freeze, names)
    require_matches("train.groups", [group.pattern for group in settings.groups], names)
    if settings.lora:
        require_matches("train.lora.train", settings.lora.train, names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, settings))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UnknownParameter("train.freeze: every parameter is frozen, so there is nothing to train")


def is_trained(name: str, settings: TrainedParameters | TrainConfig) -> bool:
    """Whether the settings let the parameter of this name change."""
    if any(re.search(pattern, name) for pattern in settings.freeze):
        return False
    group = group_of(name, settings)
    if group is not None and settings.groups[group].frozen:
        return False
    lora = settings.lora
    return lora is None or is_adapter(name) or any(re.search(pattern, name) for pattern in lora.train)


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to a low-rank adapter."""
    return name.endswith((".lora_a", ".lora_b"))


def group_of(name: str, settings: TrainedParameters | TrainConfig) -> int | None:
    """Number of the first group that matches a name."""
    matching = (n for n, group in enumerate(settings.groups) if re.search(group.pattern, name))
    return next(matching, None)


def update_rule(name: str, dimensions: int, settings: TrainConfig) -> tuple[float, float]:
    """(factor on the learning rate, weight decay) of a parameter."""
    usual = settings.weight_decay if settings.decay == "all" or dimensions > 1 else 0.0
    number = group_of(name, settings)
    if number is None:
        return 1.0, usual
    group = settings.groups[number]
    return group.lr_scale, usual if group.weight_decay is None else group.weight_decay


def require_matches(key: str, patterns: Iterable[str], names: list[str]) -> None:
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise UnknownParameter(f"{key}: {pattern!r} matches no parameter, such as {names[0]}")

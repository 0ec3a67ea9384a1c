"""What the engine needs of a model: its blocks, tower by tower. It knows no model by name.

Blocks are what is sharded, recomputed and compiled one by one; a block has the attributes `recompute` and `random`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn


class UnknownTower(ValueError):
    """The settings name a tower that the model does not have."""


class HasTowers(Protocol):
    """A model that can be trained: `model(batch)` gives a loss per target."""

    def towers(self) -> Mapping[str, list[nn.Module]]:
        """The blocks of each tower, in the order in which they run."""
        ...

    def encoders(self) -> Mapping[str, nn.Module]:
        """The modules that turn media into features, row by row: uint8 [N, ...] -> [N, ...]."""
        ...


if TYPE_CHECKING:

    class Trainable(nn.Module, HasTowers):
        """A module with towers, as families build them: none has to inherit from this."""


def recompute(model: HasTowers, kinds: Mapping[str, str]) -> None:
    """Tell each block of a tower what to compute again in the backward pass. UnknownTower for a name without a tower."""
    towers = model.towers()
    for name, kind in kinds.items():
        if name not in towers:
            raise UnknownTower(f"train.recompute: the model has no tower {name!r}; it has {', '.join(towers)}")
        block: Any
        for block in towers[name]:
            block.recompute = kind
            block.random = any(getattr(module, "dropout", 0.0) for module in block.modules())


def compile_blocks(model: HasTowers) -> None:
    """Compile each block by itself when it first runs. Blocks of a tower share their code; lengths of packs are symbols in it.

    Random numbers are drawn as without compilation, so that dropped paths are the same.
    """
    for block in (block for blocks in model.towers().values() for block in blocks):
        block.forward = torch.compile(block.forward, options={"fallback_random": True})

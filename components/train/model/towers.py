"""What the engine needs of a model: its blocks, tower by tower. It knows no model by name.

Blocks are what is sharded, recomputed and compiled one by one. A block of ours has the attributes `recompute` and `random`;
that of another library is recomputed around its `forward`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from plm_model.nn.recompute import Recompute, run_block


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


def recompute(model: HasTowers, kinds: Mapping[str, Recompute]) -> None:
    """Tell each block of a tower what to compute again in the backward pass. UnknownTower for a name without a tower."""
    towers = model.towers()
    for name, kind in kinds.items():
        if name not in towers:
            raise UnknownTower(f"train.recompute: the model has no tower {name!r}; it has {', '.join(towers)}")
        block: Any
        for block in towers[name]:
            random = any(draws(module) for module in block.modules())
            if hasattr(block, "recompute"):
                block.recompute, block.random = kind, random
            else:
                block.forward = partial(run_block, block.forward, kind, random)


def draws(module: nn.Module) -> bool:
    """Whether a module draws random numbers in training: an adapter or an attention that drops, or torch's own dropout."""
    return bool(getattr(module, "dropout", 0.0) or (isinstance(module, nn.Dropout) and module.p))


def compile_blocks(model: HasTowers) -> None:
    """Compile each block by itself when it first runs. Blocks of a tower share their code; lengths of packs are symbols in it.

    Random numbers are drawn as without compilation, so that dropped paths are the same.
    """
    for block in (block for blocks in model.towers().values() for block in blocks):
        block.forward = torch.compile(block.forward, options={"fallback_random": True})

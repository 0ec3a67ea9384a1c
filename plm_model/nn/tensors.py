"""Parameters, whole or sharded over ranks: allocated, filled, and given a seed by name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    pass


def materialise(model: nn.Module, device: torch.device | str) -> None:
    """Allocate the parameters of a model that is still on `meta`."""
    if any(parameter.is_meta for parameter in model.parameters()):
        model.to_empty(device=device)


def seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")


def copy_into(parameter: torch.Tensor, full: torch.Tensor) -> None:
    """Fill a parameter from its full value; of a sharded one, only the local shard is copied."""
    with torch.no_grad():
        if isinstance(parameter, DTensor):
            local = parameter.to_local()
            local.copy_(full[local_slices(parameter)].view_as(local))
        else:
            parameter.copy_(full)


def local_slices(parameter: DTensor) -> tuple[slice, ...]:
    """Where this rank's shard lies in the full tensor."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    return tuple(slice(start, start + length) for start, length in zip(offset, shape, strict=True))

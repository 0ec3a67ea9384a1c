"""The ranks that train together, and how a model is spread over them: FSDP2, one shard unit per block, then the root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from plm_model.plm import shard_units


@dataclass(frozen=True)
class Group:
    """This process among the ranks. Without an initialised process group: one rank, nothing sharded."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls, device: torch.device) -> Group:
        """The default process group, or a single process."""
        if not dist.is_initialized():
            return cls(device)
        return cls(device, dist.get_rank(), dist.get_world_size())

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the ranks; exact for counts below 2**53."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(total)
        return total.tolist()

    def most(self, value: float) -> float:
        """The largest value of all ranks."""
        largest = torch.tensor([value], dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return float(largest)


def shard(model: nn.Module, group: Group, dtype: Literal["float32", "bfloat16"]) -> nn.Module:
    """Spread the parameters over the ranks: fp32 masters, compute in `dtype`, gradients summed in fp32.

    Sums, not means, because the loss is already divided by the targets of all ranks. A process without a group keeps its
    model whole, and computes in float32.
    """
    if not dist.is_initialized():
        return model
    options = {
        "mesh": init_device_mesh(group.device.type, (group.world,)),
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if dtype == "bfloat16" else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,  # the tables of the rotary embedding stay fp32
        ),
    }
    for unit in shard_units(model):
        fully_shard(unit, **options)
    fully_shard(model, **options)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model


def sync_gradients(model: nn.Module, now: bool) -> None:
    """Say whether the next backward reduces gradients over the ranks, or keeps adding them up."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)

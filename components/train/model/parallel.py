"""The ranks that train together, and how a model is spread over them: FSDP2, one shard unit per block, then the root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

if TYPE_CHECKING:
    from components.train.model.towers import Trainable
    from components.train.settings import TrainConfig

AXES = ("replicate", "shard")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


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


@dataclass(frozen=True)
class MeshShape:
    """How many ranks stand along each axis, the last one running fastest: 2 x 8 has ranks 0..7 in its first replica.

    Each rank has data of its own.
    """

    replicate: int = 1
    shard: int = 1

    @classmethod
    def of(cls, world: int, replicas: int) -> MeshShape:
        """The shape for so many ranks and replicas. ValueError when they do not divide."""
        if world % replicas:
            raise ValueError(f"train.parallel.replicas is {replicas}; {world} workers are not a multiple of it")
        return cls(replicate=replicas, shard=world // replicas)


def data_mesh(group: Group, shape: MeshShape) -> DeviceMesh:
    """The axes that the model is spread over: [shard], or [replicate, shard] where there are replicas."""
    mesh = init_device_mesh(group.device.type, (shape.replicate, shape.shard), mesh_dim_names=AXES)
    return mesh if shape.replicate > 1 else mesh["shard"]


def cast(model: nn.Module, settings: TrainConfig) -> None:
    """Give a model on `meta` the dtype that it is stored in: fp32, or fp64 throughout for float64.

    What is frozen needs no fp32 copy: it is stored in the dtype of the computation.
    """
    if settings.dtype == "float64":
        model.double()
    elif dist.is_initialized():
        for parameter in (parameter for parameter in model.parameters() if not parameter.requires_grad):
            parameter.data = parameter.data.to(DTYPES[settings.dtype])


def shard(model: Trainable, group: Group, settings: TrainConfig) -> None:
    """Spread the parameters over the ranks: compute in the settings' dtype, gradients summed in fp32 (or fp64).

    Sums, not means, because the loss is already divided by the targets of all ranks. A process without a group keeps its
    model whole, and computes in float32 instead of bfloat16.
    """
    if not dist.is_initialized():
        return
    parallel, dtype = settings.parallel, DTYPES[settings.dtype]
    options: dict[str, Any] = {
        "mesh": data_mesh(group, MeshShape.of(group.world, parallel.replicas)),
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=dtype,
            reduce_dtype=torch.promote_types(dtype, torch.float32),
            cast_forward_inputs=False,  # the tables of the rotary embedding stay fp32
        ),
        "offload_policy": offload(group) if parallel.cpu_offload else OffloadPolicy(),
    }
    for blocks in model.towers().values():
        for block in blocks:
            fully_shard(block, reshard_after_forward=parallel.reshard_after_forward, **options)
    fully_shard(model, **options)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def offload(group: Group) -> CPUOffloadPolicy:
    """Shards in the host's memory, pinned where a GPU copies from it."""
    return CPUOffloadPolicy(pin_memory=group.device.type == "cuda")


def storage_device(group: Group, settings: TrainConfig) -> torch.device:
    """Where this rank's shards are stored."""
    offloaded = settings.parallel.cpu_offload and dist.is_initialized()
    return torch.device("cpu") if offloaded else group.device

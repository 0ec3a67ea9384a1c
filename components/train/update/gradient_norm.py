"""The Euclidean norm of the gradient over all ranks: fast, or with the same bits however the parameters are sharded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from plm_model.nn.tensors import local_slices

Shards = dist.ProcessGroup | None  # the ranks over which each parameter is spread; None: this rank holds all


def shards_of(parameters: Mapping[str, Tensor]) -> Shards:
    """The ranks among which the parameters are split; replicas of the whole are not counted."""
    sharded = next((p for p in parameters.values() if isinstance(p, DTensor)), None)
    return None if sharded is None else sharded.device_mesh.get_group(sharded.device_mesh.ndim - 1)


def norm(grads: Sequence[Tensor], shards: Shards) -> Tensor:
    """Norm of the gradients of which each rank holds a part: []."""
    squares = torch.stack(torch._foreach_norm(list(grads))).square().sum()
    if shards is not None:
        dist.all_reduce(squares, group=shards)
    return squares.sqrt()


def exact_norm(grads: Mapping[str, Tensor], parameters: Mapping[str, Tensor], shards: Shards) -> Tensor:
    """The norm in fp64, rounded once to the gradients' dtype: the same bits on any number of ranks.

    Sharding never cuts a row, and each row is added up in halves, an order that depends on its length only. Every rank
    then has the sums of all rows, of which it adds those of the others as zeros, and adds them up in halves again.
    """
    first = next(iter(grads.values()))
    rows = first.new_zeros(sum(len(parameters[name]) for name in grads), dtype=torch.float64)
    start = 0
    for name, grad in grads.items():
        parameter = parameters[name]
        offset = local_slices(parameter)[0].start if isinstance(parameter, DTensor) else 0
        rows[start + offset : start + offset + len(grad)] = pairwise_sum(
            grad.unsqueeze(-1).flatten(1).double().square()
        )
        start += len(parameter)
    if shards is not None:
        dist.all_reduce(rows, group=shards)
    return pairwise_sum(rows).sqrt().to(first.dtype)


def pairwise_sum(x: Tensor) -> Tensor:
    """Sum over the last dimension: the second half is added to the first until one number is left."""
    while (length := x.shape[-1]) > 1:
        half = (length + 1) // 2
        folded = x[..., :half].clone()
        folded[..., : length - half] += x[..., half:]
        x = folded
    return x.squeeze(-1)

"""When, and in which order, the gradients of micro-steps are added up over the ranks.

`OrderedSum` adds the gradients of a step's packs one by one in the order of the packs, on however many ranks they were
computed: ((g0 + g1) + g2) + g3 on 1, 2 or 4 ranks. Each pack is a virtual rank of its own. Packs take turns over the ranks,
so those of a round come in rank order; an all-to-all brings each rank all ranks' parts of its shard, which it adds to the sum
of the rounds before. That is as many bytes as a reduce-scatter, but in every micro-step instead of the last only. With the
update in separate operations and the norm in fp64, a step took 4 % more CPU time on two gloo ranks, and up to 21 % more time
on the clock of a busy machine (`tests/bench/exact_elastic.py`). Ranks need the same number of threads, and one kind of device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

# Called before micro-step n of the step's `count`.
BeforeMicroStep = Callable[[int, int], None]


def reduction(model: nn.Module, *, last_only: bool, exact: bool) -> BeforeMicroStep:
    """How the gradients of a model are added up; on one process without a group, by autograd alone."""
    units: list[FSDPModule] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if not units:
        return lambda n, count: None
    if exact and dist.get_world_size() > 1:
        return OrderedSum(model, units)
    if last_only and not exact:
        return ReduceLast(units)
    return lambda n, count: None


class ReduceLast:
    """Gradients stay on their rank until the last micro-step's backward reduces the sum."""

    def __init__(self, units: list[FSDPModule]) -> None:
        self.units = units

    def __call__(self, n: int, count: int) -> None:
        if count > 1 and n in (0, count - 1):
            for unit in self.units:
                unit.set_requires_gradient_sync(n == count - 1, recurse=False)


class OrderedSum:
    """Every micro-step's gradients join the sum so far, in rank order; the parameters' gradients are that sum."""

    def __init__(self, model: nn.Module, units: list[FSDPModule]) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.sums = [ShardSum() for _ in units]
        for unit, total in zip(units, self.sums, strict=True):
            unit.set_custom_reduce_scatter(total)  # type: ignore[arg-type]  # is called like one, whose class is private

    def __call__(self, n: int, count: int) -> None:
        for parameter in self.parameters:
            parameter.grad = None  # else what is already in the sum would be added once more
        if n == 0:
            for total in self.sums:
                total.value = None


class ShardSum:
    """A reduce-scatter for one shard unit that starts from the sum of the micro-steps before."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, op: Any, async_op: bool = False
    ) -> None:
        parts = torch.empty_like(input_tensor)
        dist.all_to_all_single(parts, input_tensor, group=group)
        if self.value is None:
            output_tensor.zero_()
        else:
            output_tensor.copy_(self.value)
        for part in parts.chunk(group.size()):
            output_tensor.add_(part)
        self.value = output_tensor

"""An exponential moving average of the trained weights, sharded as they are.

After n updates it is d^n w_0 + (1 - d) (d^(n-1) w_1 + ... + w_n).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor; the tensor itself when it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class MovingAverage:
    """Starts at the parameters as they are. `tensors` by parameter name, in the parameters' own dtype."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in parameters.items()}
        self._average = [local(tensor) for tensor in self.tensors.values()]
        self._current = [local(p.detach()) for p in parameters.values()]

    @torch.no_grad()
    def update(self, skip: Tensor | None = None) -> None:
        """Take in the parameters as they are now; not where `skip`, fp32 [], is 1.0."""
        if skip is None:
            torch._foreach_lerp_(self._average, self._current, 1 - self.decay)
        else:
            share = (1 - self.decay) * (1 - skip)
            for average, current in zip(self._average, self._current, strict=True):
                average.lerp_(current, share.to(average.device, average.dtype))

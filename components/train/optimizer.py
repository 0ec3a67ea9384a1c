"""AdamW on this rank's shards: an update is elementwise, so it needs no communication but one sum for the gradient's norm.

Going through the local tensors instead of DTensors saves their dispatch, about half of a small model's step on a CPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw


class UnknownParameter(ValueError):
    """A pattern in `train.freeze` that matches no parameter, or leaves none to train."""


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Stop the gradient of every parameter whose name a pattern matches anywhere. Call before the model is sharded."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise UnknownParameter(f"train.freeze: {pattern!r} matches no parameter, such as {names[0]}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(re.search(pattern, name) for pattern in patterns))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UnknownParameter("train.freeze: every parameter is frozen, so there is nothing to train")


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor; the tensor itself when it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class ShardedAdamW:
    """AdamW with decoupled weight decay on matrices; vectors (norms, biases, scales) do not decay."""

    def __init__(
        self,
        model: nn.Module,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        clip_norm: float | None,
        eps: float = 1e-8,
    ) -> None:
        self.betas, self.weight_decay, self.clip_norm, self.eps = betas, weight_decay, clip_norm, eps
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.exp_avg = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.updates = {name: torch.zeros((), device=local(p).device) for name, p in self.parameters.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The state as it is saved: `<parameter>.exp_avg` and `.exp_avg_sq`, sharded as the parameters are."""
        first = {f"{name}.exp_avg": tensor for name, tensor in self.exp_avg.items()}
        return first | {f"{name}.exp_avg_sq": tensor for name, tensor in self.exp_avg_sq.items()}

    def resume_after(self, updates: int) -> None:
        """Tell how many updates the state, just loaded, has seen."""
        for count in self.updates.values():
            count.fill_(float(updates))

    def updates_made(self) -> int:
        """How many updates the state has seen: fewer than steps where some were skipped. Waits for the device."""
        return int(next(iter(self.updates.values())))

    @torch.no_grad()
    def step(self, lr: float, veto: Callable[[Tensor], Tensor | None] = lambda norm: None) -> Tensor:
        """One update with the gradients at hand, which it clears. Returns their global norm before clipping: fp32 [].

        `veto(norm)` decides on the device, without a sync: where it gives 1.0, weights and state stay to the last bit.
        """
        grads = {name: local(p.grad) for name, p in self.parameters.items() if p.grad is not None}
        norm = global_norm(list(grads.values()), self.parameters)
        skip = veto(norm)
        if self.clip_norm is not None:
            torch._foreach_mul_(list(grads.values()), (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        for decays in (True, False):
            self._update({n: g for n, g in grads.items() if (self.parameters[n].ndim > 1) == decays}, lr, decays, skip)
        for parameter in self.parameters.values():
            parameter.grad = None
        return norm

    def _update(self, grads: dict[str, Tensor], lr: float, decays: bool, skip: Tensor | None) -> None:
        adamw(
            [local(self.parameters[name]) for name in grads],
            list(grads.values()),
            [local(self.exp_avg[name]) for name in grads],
            [local(self.exp_avg_sq[name]) for name in grads],
            [],
            [self.updates[name] for name in grads],
            foreach=False,
            fused=True,
            found_inf=skip,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=self.weight_decay if decays else 0.0,
            eps=self.eps,
            maximize=False,
        )


def global_norm(grads: Sequence[Tensor], parameters: dict[str, nn.Parameter]) -> Tensor:
    """Euclidean norm over the gradients of all ranks: fp32 []."""
    squares = torch.stack(torch._foreach_norm(list(grads))).square().sum()
    if any(isinstance(p, DTensor) for p in parameters.values()):
        dist.all_reduce(squares)
    return squares.sqrt()

"""AdamW on this rank's shards: an update is elementwise, so it needs no communication but one sum for the gradient's norm.

Going through the local tensors instead of DTensors saves their dispatch, about half of a small model's step on a CPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from components.train.update.ema import MovingAverage, local
from components.train.update.gradient_norm import exact_norm, norm, shards_of
from components.train.update.param_groups import update_rule

if TYPE_CHECKING:
    from components.train.settings import TrainConfig

EPS = 1e-8


class ShardedAdamW:
    """AdamW with decoupled weight decay over the parameters that learn, and their moving average if one is asked for.

    Make it once the parameters have their storage. By default vectors (norms, biases, scales) do not decay. Norms and
    verdicts are on `device`, which is not that of the parameters when these are offloaded; None: it is.
    """

    def __init__(self, model: nn.Module, settings: TrainConfig, device: torch.device | None = None) -> None:
        self.settings, self.device = settings, device
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.exp_avg = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        # Separate operations give an element the same bits wherever a shard begins; the fused one does not on a CPU.
        self.fused = not settings.exact_elastic
        self.updates = {
            name: torch.zeros((), device=local(p).device if self.fused else "cpu")
            for name, p in self.parameters.items()
        }
        self.shards = shards_of(self.parameters)
        self.rules: dict[tuple[float, float], list[str]] = defaultdict(list)
        for name, parameter in self.parameters.items():
            self.rules[update_rule(name, parameter.ndim, settings)].append(name)
        self.average = None if settings.ema_decay is None else MovingAverage(self.parameters, settings.ema_decay)

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
        length = self._norm(grads)
        told = length if self.device is None else length.to(self.device, non_blocking=True)
        skip = veto(told)
        if skip is not None:
            skip = skip.to(length.device)  # where parameters are offloaded, their update reads it on the CPU: wait
        if self.settings.clip_norm is not None:
            torch._foreach_mul_(list(grads.values()), (self.settings.clip_norm / (length + 1e-6)).clamp(max=1.0))
        if self.fused or skip is None or not bool(skip):
            for (lr_scale, weight_decay), names in self.rules.items():
                present = names if len(grads) == len(self.parameters) else [name for name in names if name in grads]
                self._update(present, grads, lr * lr_scale, weight_decay, skip if self.fused else None)
            if self.average is not None:
                self.average.update(skip if self.fused else None)
        for parameter in self.parameters.values():
            parameter.grad = None
        return told

    def _norm(self, grads: dict[str, Tensor]) -> Tensor:
        if not self.settings.exact_elastic:
            return norm(list(grads.values()), self.shards)
        torch._foreach_add_(list(grads.values()), 0.0)  # -0 where no filler was added, 0 where one was: now 0
        return exact_norm(grads, self.parameters, self.shards)

    def _update(
        self, names: list[str], grads: dict[str, Tensor], lr: float, weight_decay: float, skip: Tensor | None
    ) -> None:
        adamw(
            [local(self.parameters[name]) for name in names],
            [grads[name] for name in names],
            [local(self.exp_avg[name]) for name in names],
            [local(self.exp_avg_sq[name]) for name in names],
            [],
            [self.updates[name] for name in names],
            foreach=not self.fused,
            fused=self.fused,
            found_inf=skip,
            amsgrad=False,
            beta1=self.settings.betas[0],
            beta2=self.settings.betas[1],
            lr=lr,
            weight_decay=weight_decay,
            eps=EPS,
            maximize=False,
        )

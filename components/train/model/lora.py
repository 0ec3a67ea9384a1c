"""Low-rank adapters that leave the names of the base model's parameters alone, so that a checkpoint fills it as ever.

A layer `x` gets `x.lora_a` [rank, in], which starts random, and `x.lora_b` [out, rank], which starts at zero: training starts
at the base model. The adapter's result is that of the `peft` library; we need it on modules that are still on `meta`, sharded
afterwards, on machines without that library. Hu et al., arXiv:2106.09685.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.train.sections import LoRASettings
from components.train.update.param_groups import UnknownParameter
from plm_model.nn.tensors import copy_into, seed_of


class LoRALinear(nn.Linear):
    """W x + b + (alpha / rank) B A dropout(x); takes the place, and the parameters, of a linear layer."""

    def __init__(self, base: nn.Linear, settings: LoRASettings) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        kind: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_a = nn.Parameter(torch.empty(settings.rank, base.in_features, **kind))
        self.lora_b = nn.Parameter(torch.empty(base.out_features, settings.rank, **kind))
        self.scale, self.dropout = settings.alpha / settings.rank, settings.dropout

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        low = F.linear(F.dropout(x, self.dropout, self.training) if self.dropout else x, self.lora_a)
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(low, self.lora_b)


def add_adapters(model: nn.Module, settings: LoRASettings) -> frozenset[str]:
    """Put an adapter on every linear layer whose name the pattern matches; returns the names of the new parameters.

    UnknownParameter when it matches none.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = [name for name in linears if re.search(settings.pattern, name)]
    if not chosen:
        such = f", such as {next(iter(linears))}" if linears else ""
        raise UnknownParameter(f"train.lora.pattern: {settings.pattern!r} matches no linear layer{such}")
    for name in chosen:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, LoRALinear(linears[name], settings))
    return frozenset(f"{name}.{part}" for name in chosen for part in ("lora_a", "lora_b"))


def initialise_adapters(model: nn.Module, seed: int) -> None:
    """Starting values, which depend on the seed and a parameter's name only. Shards take their part."""
    for name, parameter in model.named_parameters():
        if name.endswith(".lora_a"):
            generator = torch.Generator().manual_seed(seed_of(seed, name))
            bound = 1 / math.sqrt(parameter.shape[1])
            copy_into(parameter, torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
        elif name.endswith(".lora_b"):
            copy_into(parameter, torch.zeros(parameter.shape))


def merged(weight: Tensor, a: Tensor, b: Tensor, settings: LoRASettings) -> Tensor:
    """The weight that does what the layer and its adapter do: fp32 [out, in]."""
    return weight.float() + (settings.alpha / settings.rank) * (b.float() @ a.float())
